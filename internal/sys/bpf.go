package sys

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// progLoad is union bpf_attr as BPF_PROG_LOAD reads it (linux/bpf.h), up to prog_name. Pointers take
// the place of the kernel's aligned 64-bit fields: 64-bit machines only.
type progLoad struct {
	progType  uint32
	insnCount uint32
	insns     unsafe.Pointer
	license   unsafe.Pointer
	logLevel  uint32
	logSize   uint32
	logBuf    unsafe.Pointer
	kernel    uint32
	flags     uint32
	name      [unix.BPF_OBJ_NAME_LEN]byte // 4.15
}

// loadTries bounds how often BPF_PROG_LOAD is asked again after EAGAIN, which says that a signal
// arrived while the verifier ran; Go's own preemption signal is enough.
const loadTries = 10

// LoadSocketFilter loads an eBPF program of type socket filter and returns its
// descriptor, close-on-exec, which the caller closes. insns are in the kernel's encoding. name, at
// most 15 letters, digits, dots or underscores, is what bpftool(8) shows.
//
// It needs CAP_BPF in the initial user namespace, or kernel.unprivileged_bpf_disabled 0; otherwise
// the error is EPERM.
func LoadSocketFilter(name string, insns []uint64) (int, error) {
	license := []byte("Apache-2.0\x00")
	attr := progLoad{
		progType:  unix.BPF_PROG_TYPE_SOCKET_FILTER,
		insnCount: uint32(len(insns)),
		insns:     unsafe.Pointer(unsafe.SliceData(insns)),
		license:   unsafe.Pointer(unsafe.SliceData(license)),
	}
	copy(attr.name[:len(attr.name)-1], name)
	errno := unix.EAGAIN
	for try := 0; errno == unix.EAGAIN && try < loadTries; try++ {
		var fd uintptr
		fd, _, errno = unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
		if errno == 0 {
			runtime.KeepAlive(license)
			return int(fd), nil
		}
	}
	return -1, errno
}

// TunSetSteering makes the socket filter prog choose the queue for each frame that the kernel sends
// out by tap's interface, in place of the flows it has learned; -1 undoes that. The program sees the
// frame from its Ethernet header on; the kernel takes its result modulo the number of queues, and
// holds its own reference to it. Needs no privilege (Linux 4.16).
func TunSetSteering(tap, prog int) error {
	return unix.IoctlSetPointerInt(tap, unix.TUNSETSTEERINGEBPF, prog)
}
