package sys

import "golang.org/x/sys/unix"

// SockFilter is an instruction of classic BPF (struct sock_filter).
type SockFilter = unix.SockFilter

// Verdicts of a seccomp filter (seccomp(2)); an errno goes into the low 16
// bits of SeccompErrno.
const (
	SeccompAllow       = unix.SECCOMP_RET_ALLOW
	SeccompErrno       = unix.SECCOMP_RET_ERRNO
	SeccompKillProcess = unix.SECCOMP_RET_KILL_PROCESS // Linux 4.14; older kernels kill the thread
)

// Numbers of system calls, for the list of those that are allowed. Those that
// only older architectures have are in LegacyIO and LegacyFiles.
const (
	NrAccept           = unix.SYS_ACCEPT
	NrAccept4          = unix.SYS_ACCEPT4
	NrBind             = unix.SYS_BIND
	NrBrk              = unix.SYS_BRK
	NrChdir            = unix.SYS_CHDIR
	NrClockGetres      = unix.SYS_CLOCK_GETRES
	NrClockGettime     = unix.SYS_CLOCK_GETTIME
	NrClockNanosleep   = unix.SYS_CLOCK_NANOSLEEP
	NrClone            = unix.SYS_CLONE
	NrClone3           = unix.SYS_CLONE3
	NrClose            = unix.SYS_CLOSE
	NrConnect          = unix.SYS_CONNECT
	NrCopyFileRange    = unix.SYS_COPY_FILE_RANGE
	NrDup              = unix.SYS_DUP
	NrDup3             = unix.SYS_DUP3
	NrEpollCreate1     = unix.SYS_EPOLL_CREATE1
	NrEpollCtl         = unix.SYS_EPOLL_CTL
	NrEpollPwait       = unix.SYS_EPOLL_PWAIT
	NrEpollPwait2      = unix.SYS_EPOLL_PWAIT2
	NrEventfd2         = unix.SYS_EVENTFD2
	NrExit             = unix.SYS_EXIT
	NrExitGroup        = unix.SYS_EXIT_GROUP
	NrFaccessat        = unix.SYS_FACCESSAT
	NrFaccessat2       = unix.SYS_FACCESSAT2
	NrFallocate        = unix.SYS_FALLOCATE
	NrFcntl            = unix.SYS_FCNTL
	NrFdatasync        = unix.SYS_FDATASYNC
	NrFlock            = unix.SYS_FLOCK
	NrFstat            = unix.SYS_FSTAT
	NrFsync            = unix.SYS_FSYNC
	NrFtruncate        = unix.SYS_FTRUNCATE
	NrFutex            = unix.SYS_FUTEX
	NrGetcpu           = unix.SYS_GETCPU
	NrGetegid          = unix.SYS_GETEGID
	NrGeteuid          = unix.SYS_GETEUID
	NrGetgid           = unix.SYS_GETGID
	NrGetpeername      = unix.SYS_GETPEERNAME
	NrGetpid           = unix.SYS_GETPID
	NrGetppid          = unix.SYS_GETPPID
	NrGetrandom        = unix.SYS_GETRANDOM
	NrGetrusage        = unix.SYS_GETRUSAGE
	NrGetsockname      = unix.SYS_GETSOCKNAME
	NrGetsockopt       = unix.SYS_GETSOCKOPT
	NrGettid           = unix.SYS_GETTID
	NrGettimeofday     = unix.SYS_GETTIMEOFDAY
	NrGetuid           = unix.SYS_GETUID
	NrInotifyAddWatch  = unix.SYS_INOTIFY_ADD_WATCH
	NrInotifyInit1     = unix.SYS_INOTIFY_INIT1
	NrInotifyRmWatch   = unix.SYS_INOTIFY_RM_WATCH
	NrIoctl            = unix.SYS_IOCTL
	NrListen           = unix.SYS_LISTEN
	NrLseek            = unix.SYS_LSEEK
	NrMadvise          = unix.SYS_MADVISE
	NrMembarrier       = unix.SYS_MEMBARRIER
	NrMincore          = unix.SYS_MINCORE
	NrMmap             = unix.SYS_MMAP
	NrMprotect         = unix.SYS_MPROTECT
	NrMremap           = unix.SYS_MREMAP
	NrMunmap           = unix.SYS_MUNMAP
	NrNanosleep        = unix.SYS_NANOSLEEP
	NrOpenat           = unix.SYS_OPENAT
	NrOpenat2          = unix.SYS_OPENAT2
	NrPidfdSendSignal  = unix.SYS_PIDFD_SEND_SIGNAL
	NrPipe2            = unix.SYS_PIPE2
	NrPpoll            = unix.SYS_PPOLL
	NrPrctl            = unix.SYS_PRCTL
	NrPread64          = unix.SYS_PREAD64
	NrPreadv           = unix.SYS_PREADV
	NrPrlimit64        = unix.SYS_PRLIMIT64
	NrPwrite64         = unix.SYS_PWRITE64
	NrPwritev          = unix.SYS_PWRITEV
	NrRead             = unix.SYS_READ
	NrReadlinkat       = unix.SYS_READLINKAT
	NrReadv            = unix.SYS_READV
	NrRecvfrom         = unix.SYS_RECVFROM
	NrRecvmmsg         = unix.SYS_RECVMMSG
	NrRecvmsg          = unix.SYS_RECVMSG
	NrRestartSyscall   = unix.SYS_RESTART_SYSCALL
	NrRseq             = unix.SYS_RSEQ
	NrRtSigaction      = unix.SYS_RT_SIGACTION
	NrRtSigprocmask    = unix.SYS_RT_SIGPROCMASK
	NrRtSigreturn      = unix.SYS_RT_SIGRETURN
	NrSchedGetaffinity = unix.SYS_SCHED_GETAFFINITY
	NrSchedGetattr     = unix.SYS_SCHED_GETATTR
	NrSchedSetaffinity = unix.SYS_SCHED_SETAFFINITY
	NrSchedSetattr     = unix.SYS_SCHED_SETATTR
	NrSchedYield       = unix.SYS_SCHED_YIELD
	NrSendfile         = unix.SYS_SENDFILE
	NrSendmmsg         = unix.SYS_SENDMMSG
	NrSendmsg          = unix.SYS_SENDMSG
	NrSendto           = unix.SYS_SENDTO
	NrSetsockopt       = unix.SYS_SETSOCKOPT
	NrShutdown         = unix.SYS_SHUTDOWN
	NrSigaltstack      = unix.SYS_SIGALTSTACK
	NrSignalfd4        = unix.SYS_SIGNALFD4
	NrSocket           = unix.SYS_SOCKET
	NrSplice           = unix.SYS_SPLICE
	NrStatx            = unix.SYS_STATX
	NrTee              = unix.SYS_TEE
	NrTgkill           = unix.SYS_TGKILL
	NrTimerfdCreate    = unix.SYS_TIMERFD_CREATE
	NrTimerfdGettime   = unix.SYS_TIMERFD_GETTIME
	NrTimerfdSettime   = unix.SYS_TIMERFD_SETTIME
	NrUname            = unix.SYS_UNAME
	NrWait4            = unix.SYS_WAIT4
	NrWaitid           = unix.SYS_WAITID
	NrWrite            = unix.SYS_WRITE
	NrWritev           = unix.SYS_WRITEV
)

// Values of arguments that the filter looks at.
const (
	// ThreadFlags are those with which Go's runtime makes a thread; on amd64
	// CLONE_SETTLS may come in.
	ThreadFlags  = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_SYSVSEM | unix.CLONE_THREAD
	CloneSetTLS  = unix.CLONE_SETTLS
	ProtExec     = unix.PROT_EXEC
	MapAnonymous = unix.MAP_ANONYMOUS
	PrSetVMA     = unix.PR_SET_VMA // by which the runtime names its memory
	PrSetName    = unix.PR_SET_NAME
	Fionread     = 0x541B // SIOCINQ too
	Siocoutq     = unix.SIOCOUTQ
	Siocoutqnsd  = unix.SIOCOUTQNSD
	SockTypeMask = 0xf // of socket(2)'s type, without its flags (linux/net.h)
	// OpenChanges are the flags of open(2) that do more than read.
	OpenChanges = unix.O_WRONLY | unix.O_RDWR | unix.O_CREAT | unix.O_TRUNC | unix.O_TMPFILE&^unix.O_DIRECTORY
)
