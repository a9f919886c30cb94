package tcpx

import "unsafe"

// connSize is the size of a record, in octets; a compile-time fact, no memory
// is touched.
const connSize = int(unsafe.Sizeof(conn{}))
