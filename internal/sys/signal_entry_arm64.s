#include "textflag.h"

#define SYS_rt_sigaction   134
#define SYS_rt_sigprocmask 135
#define SYS_prlimit64      261
#define RLIMIT_NOFILE      7
#define SIG_IGN            1

// func entry()
//
// The kernel comes here with the arguments on the stack, which is left alone
// for the runtime's entry point. R19 is the signal, R20 the set; a system call
// clobbers R0 only.
TEXT ·entry(SB), NOSPLIT|NOFRAME|TOPFRAME, $0-0
	MOVD	$SYS_rt_sigprocmask, R8
	MOVD	$0, R0 // SIG_BLOCK, of nothing: read only
	MOVD	$0, R1
	MOVD	$·entryMask(SB), R2
	MOVD	$8, R3
	SVC

	MOVD	$1, R19
	MOVD	$0, R20
next:
	MOVD	$SYS_rt_sigaction, R8
	MOVD	R19, R0
	MOVD	$0, R1
	MOVD	$·entryAction(SB), R2
	MOVD	$8, R3
	SVC
	MOVD	·entryAction(SB), R4
	CMP	$SIG_IGN, R4
	BNE	other
	SUB	$1, R19, R5
	MOVD	$1, R6
	LSL	R5, R6, R6
	ORR	R6, R20, R20
other:
	ADD	$1, R19, R19
	CMP	$64, R19
	BLE	next
	MOVD	R20, ·entryIgnored(SB)

	MOVD	$SYS_prlimit64, R8
	MOVD	$0, R0
	MOVD	$RLIMIT_NOFILE, R1
	MOVD	$0, R2
	MOVD	$·entryLimit(SB), R3
	SVC

	MOVD	$1, R0
	MOVD	R0, ·entryRan(SB)
	B	_rt0_arm64_linux(SB)
