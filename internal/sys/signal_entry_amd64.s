#include "textflag.h"

#define SYS_rt_sigaction   13
#define SYS_rt_sigprocmask 14
#define SYS_prlimit64      302
#define RLIMIT_NOFILE      7
#define SIG_IGN            1

// func entry()
//
// The kernel comes here with the arguments on the stack, which is left alone
// for the runtime's entry point. R12 is the signal, R13 the set; a system call
// clobbers RAX, RCX and R11.
TEXT ·entry(SB), NOSPLIT|NOFRAME|TOPFRAME, $0-0
	MOVL	$SYS_rt_sigprocmask, AX
	XORL	DI, DI // SIG_BLOCK, of nothing: read only
	XORL	SI, SI
	LEAQ	·entryMask(SB), DX
	MOVL	$8, R10
	SYSCALL

	MOVL	$1, R12
	XORL	R13, R13
next:
	MOVL	$SYS_rt_sigaction, AX
	MOVL	R12, DI
	XORL	SI, SI
	LEAQ	·entryAction(SB), DX
	MOVL	$8, R10
	SYSCALL
	CMPQ	·entryAction(SB), $SIG_IGN
	JNE	other
	LEAQ	-1(R12), CX
	BTSQ	CX, R13
other:
	INCL	R12
	CMPL	R12, $64
	JLE	next
	MOVQ	R13, ·entryIgnored(SB)

	MOVL	$SYS_prlimit64, AX
	XORL	DI, DI
	MOVL	$RLIMIT_NOFILE, SI
	XORL	DX, DX
	LEAQ	·entryLimit(SB), R10
	SYSCALL

	MOVQ	$1, ·entryRan(SB)
	JMP	_rt0_amd64_linux(SB)
