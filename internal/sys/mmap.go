package sys

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Protection bits for Mprotect.
const (
	ProtNone  = unix.PROT_NONE
	ProtRead  = unix.PROT_READ
	ProtWrite = unix.PROT_WRITE
)

// Advice for Madvise. DontNeed has its own function for the packet path.
const (
	AdviseWillNeed   = unix.MADV_WILLNEED   // touch or read ahead
	AdviseNoHugePage = unix.MADV_NOHUGEPAGE // never back the range by huge pages
	AdviseDontDump   = unix.MADV_DONTDUMP   // leave the range out of core dumps
)

// PageSize returns the kernel's page size in bytes.
func PageSize() int { return unix.Getpagesize() }

// Mprotect changes the protection (an OR of Prot bits) of the pages that hold b, part of a mapping
// such as MapReserve's. The start of b must be page-aligned; the end is rounded up to a page.
func Mprotect(b []byte, prot int) error {
	if err := unix.Mprotect(b, prot); err != nil {
		return fmt.Errorf("protect %d bytes: %w", len(b), err)
	}
	return nil
}

// Madvise tells the kernel how the pages of b will be used (one of the Advise values). The start of
// b must be page-aligned; the end is rounded up to a page.
func Madvise(b []byte, advice int) error {
	if err := unix.Madvise(b, advice); err != nil {
		return fmt.Errorf("advise on %d bytes: %w", len(b), err)
	}
	return nil
}
