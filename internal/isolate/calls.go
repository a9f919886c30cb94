package isolate

import (
	"syscall"

	"penne/internal/sys"
)

// Verdicts.
const (
	allow   = sys.SeccompAllow
	kill    = sys.SeccompKillProcess
	refuse  = sys.SeccompErrno | uint32(syscall.EPERM)
	missing = sys.SeccompErrno | uint32(syscall.ENOSYS)
)

const whole = ^uint32(0)

// plain lists calls that are allowed whatever their arguments.
var plain = [][]uint32{
	// The packet path and the loops around it.
	{
		sys.NrRead, sys.NrReadv, sys.NrWrite, sys.NrWritev, sys.NrRecvfrom, sys.NrRecvmsg, sys.NrRecvmmsg,
		sys.NrSendto, sys.NrSendmsg, sys.NrSendmmsg, sys.NrSplice, sys.NrTee, sys.NrEpollPwait, sys.NrEpollPwait2, sys.NrEpollCtl,
	},
	// Sockets, pipes, events: made, set and ended per flow.
	{
		sys.NrAccept, sys.NrAccept4, sys.NrBind, sys.NrConnect, sys.NrListen, sys.NrShutdown, sys.NrGetsockopt, sys.NrSetsockopt,
		sys.NrGetsockname, sys.NrGetpeername, sys.NrClose, sys.NrPipe2, sys.NrEventfd2, sys.NrEpollCreate1, sys.NrFcntl, sys.NrDup, sys.NrDup3,
		sys.NrTimerfdCreate, sys.NrTimerfdSettime, sys.NrTimerfdGettime, sys.NrSignalfd4, sys.NrPpoll,
		sys.NrInotifyInit1, sys.NrInotifyAddWatch, sys.NrInotifyRmWatch,
	},
	sys.LegacyIO,
	// Log and capture files, which are open.
	{
		sys.NrFstat, sys.NrLseek, sys.NrPread64, sys.NrPreadv, sys.NrPwrite64, sys.NrPwritev, sys.NrFtruncate, sys.NrFallocate,
		sys.NrFsync, sys.NrFdatasync, sys.NrFlock,
	},
	// Go's runtime: memory, threads, signals, time.
	{
		sys.NrMunmap, sys.NrMremap, sys.NrMadvise, sys.NrBrk, sys.NrMincore, sys.NrFutex, sys.NrSchedYield, sys.NrSchedGetaffinity,
		sys.NrMembarrier, sys.NrRseq, sys.NrGetcpu, sys.NrRtSigaction, sys.NrRtSigprocmask, sys.NrRtSigreturn, sys.NrSigaltstack,
		sys.NrRestartSyscall, sys.NrExit, sys.NrExitGroup, sys.NrNanosleep, sys.NrClockNanosleep, sys.NrClockGettime, sys.NrClockGetres,
		sys.NrGettimeofday, sys.NrGetrandom, sys.NrGetpid, sys.NrGettid,
	},
	// The control thread: who we are, what we used, the end of others. The
	// working directory is all there is.
	{
		sys.NrGetppid, sys.NrGetuid, sys.NrGeteuid, sys.NrGetgid, sys.NrGetegid, sys.NrUname, sys.NrGetrusage, sys.NrWait4, sys.NrWaitid,
		sys.NrPidfdSendSignal, sys.NrChdir,
	},
}

// files are calls by path, of which nothing is left to be found. Libraries
// make them at odd times.
var files = [][]uint32{
	{sys.NrOpenat2, sys.NrNewfstatat, sys.NrStatx, sys.NrFaccessat, sys.NrFaccessat2, sys.NrPrlimit64},
	sys.LegacyFiles,
}

// absent are calls whose users know what to do on a kernel without them.
var absent = []uint32{sys.NrClone3, sys.NrCopyFileRange, sys.NrSendfile}

// rules is the list for a Config. pid is our own, as we see it.
func rules(c *Config, pid int) []rule {
	list := make([]rule, 0, 160)
	all := func(verdict uint32, groups ...[]uint32) {
		for _, g := range groups {
			for _, nr := range g {
				list = append(list, rule{nr: nr, otherwise: verdict})
			}
		}
	}
	all(allow, plain...)
	all(refuse, files...)
	all(missing, absent)
	noExec, ownThread := check{2, sys.ProtExec, 0}, [][]check{{{0, whole, 0}}}
	return append(list,
		// A thread as Go makes it, no process.
		rule{sys.NrClone, [][]check{{{0, ^uint32(sys.CloneSetTLS), sys.ThreadFlags}}}, kill},
		// Memory, not files.
		rule{sys.NrMmap, [][]check{{noExec, {3, sys.MapAnonymous, sys.MapAnonymous}}}, kill},
		rule{sys.NrMprotect, [][]check{{noExec}}, kill},
		// The runtime stops its own threads, and aborts by a signal.
		rule{sys.NrTgkill, [][]check{{{0, whole, uint32(pid)}}}, kill},
		// A shard's thread chooses how it is scheduled, nobody else's.
		rule{sys.NrSchedSetaffinity, ownThread, refuse},
		rule{sys.NrSchedGetattr, ownThread, refuse},
		rule{sys.NrSchedSetattr, ownThread, refuse},
		rule{sys.NrPrctl, [][]check{{{0, whole, sys.PrSetVMA}}, {{0, whole, sys.PrSetName}}}, refuse},
		rule{sys.NrSocket, sockets(), refuse},
		rule{sys.NrIoctl, [][]check{{{1, whole, sys.Fionread}}, {{1, whole, sys.Siocoutq}}, {{1, whole, sys.Siocoutqnsd}}}, refuse},
		rule{sys.NrOpenat, opens(c), refuse},
		rule{nr: sys.NrReadlinkat, otherwise: readlink(c)},
	)
}

// sockets are TCP, UDP and ping sockets of both families.
func sockets() (when [][]check) {
	for _, family := range []uint32{sys.AF_INET, sys.AF_INET6} {
		for _, typ := range []uint32{sys.SOCK_STREAM, sys.SOCK_DGRAM} {
			when = append(when, []check{{0, whole, family}, {1, sys.SockTypeMask, typ}})
		}
	}
	return when
}

// opens is for reading, below directories that are still open, where a Config
// asks for it.
func opens(c *Config) [][]check {
	if !c.ReadFiles {
		return nil
	}
	return [][]check{{{2, sys.OpenChanges, 0}}}
}

// readlink tells which link has come instead of a file.
func readlink(c *Config) uint32 {
	if c.ReadFiles {
		return allow
	}
	return refuse
}
