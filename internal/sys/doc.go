// Package sys is the one door to system calls: the only package that imports
// golang.org/x/sys/unix, and, with files named *_unsafe.go, the only place for
// unsafe. Calls come in two kinds. Those of the packet path never block, so
// they are made raw, past the Go scheduler, take their memory from the caller
// and return an Errno; they do not allocate. The others are ordinary Go.
package sys
