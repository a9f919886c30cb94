package wire

import "strings"

// NameLen is the length of the domain name d, which may end in a dot, in the encoding
// of RFC 1035 section 3.1; false if d is not valid.
func NameLen(d string) (int, bool) {
	d = strings.TrimSuffix(d, ".")
	label := 0
	for i := range len(d) {
		if d[i] != '.' {
			label++
			continue
		}
		if label == 0 || label > 63 {
			return 0, false
		}
		label = 0
	}
	return len(d) + 2, label > 0 && label <= 63 && len(d) <= 253
}

// PutName appends the encoding of the valid name d, without compression, to b.
func PutName(b []byte, d string) []byte {
	d = strings.TrimSuffix(d, ".")
	for len(d) > 0 {
		label, rest, _ := strings.Cut(d, ".")
		b = append(b, uint8(len(label)))
		b = append(b, label...)
		d = rest
	}
	return append(b, 0)
}
