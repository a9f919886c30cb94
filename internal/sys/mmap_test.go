package sys

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMprotectMadvise(t *testing.T) {
	page := PageSize()
	b, err := MapReserve(4 * page)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) != 4*page || b[0] != 0 || b[len(b)-1] != 0 {
		t.Fatalf("len %d, first %d, last %d; want %d zero bytes", len(b), b[0], b[len(b)-1], 4*page)
	}
	if err := Madvise(b, AdviseDontDump); err != nil {
		t.Error(err)
	}
	if err := Mprotect(b[3*page:], ProtNone); err != nil {
		t.Error(err)
	}
	if err := Mprotect(b[1:page], ProtNone); !errors.Is(err, unix.EINVAL) {
		t.Errorf("Mprotect off a page boundary: %v, want EINVAL", err)
	}
	if err := Unmap(b); err != nil {
		t.Error(err)
	}
	if err := Mprotect(b, ProtRead); !errors.Is(err, unix.ENOMEM) {
		t.Errorf("Mprotect after Unmap: %v, want ENOMEM", err)
	}
}
