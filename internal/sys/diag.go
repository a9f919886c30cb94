package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// Numbers of sock_diag(7), for the package that reads the answers.
const (
	SockDiagByFamily = unix.SOCK_DIAG_BY_FAMILY // message type, request and answer
	// SizeofInetDiagReq and SizeofInetDiagMsg are the sizes of struct
	// inet_diag_req_v2 and struct inet_diag_msg, in bytes (linux/inet_diag.h).
	SizeofInetDiagReq = 56
	SizeofInetDiagMsg = 72
	// InetDiagSKV6Only is an attribute, one byte: IPV6_V6ONLY of a socket
	// that listens or is not connected (Linux 4.3).
	InetDiagSKV6Only = 11
	// TCPListen and TCPClose are socket states (linux/tcp_states.h); a UDP
	// socket that is not connected is in the latter.
	TCPListen = 10
	TCPClose  = 7

	NlmsgError = unix.NLMSG_ERROR
	NlmsgDone  = unix.NLMSG_DONE
)

// DiagSocket opens a sock_diag netlink socket in the network namespace of the
// calling thread. read(2) and write(2) talk to the kernel; both never block.
// Reading is answered at once, for the kernel fills a dump when it is read.
func DiagSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	return fd, nil
}
