// Package isolate takes from the engine everything that it does not need to
// forward, once set-up is done and before the guest's first byte is read: the
// file system, capabilities, new privileges, core dumps and tracing, and most
// system calls.
//
// A system call that is not on the list ends the process: there is no honest
// reason for it. Where a library may try one that we can do without (opening a
// file, say), it gets an error instead. The list is in calls.go, each group
// with its user. Calls of the packet path are allowed whatever their arguments,
// which lets the kernel remember the verdict and never run the filter for them
// (Linux 5.11).
//
// The filter is assembled here, not by a library: the one at hand costs every
// start of the program 0.23 ms and 160 KB for its table of system calls of all
// architectures.
//
// Called once, by the control plane. [Engine] needs threads to change their
// credentials together, which a program linked with cgo cannot do
// ([syscall.AllThreadsSyscall]): builds with the race detector go without.
package isolate
