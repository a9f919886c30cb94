// Package wire reads and builds Ethernet, IPv4, IPv6, TCP, UDP and ICMP headers.
// Parse checks every length in a frame from the guest, once, on entry; what
// follows relies on the offsets it found and does not check again.
//
// Nothing here allocates, does I/O or keeps state. All multi-octet fields are
// in network byte order on the wire and in host order in the API.
//
// Sources: RFC 791 (IPv4), RFC 8200 (IPv6), RFC 826 (ARP), RFC 9293 (TCP),
// RFC 768 (UDP), RFC 792 and RFC 4443 (ICMP).
package wire
