//go:build linux

#include "textflag.h"

#define SYS_exit_group 94
#define SYS_rt_sigprocmask 135
#define SYS_getpid 172
#define SYS_clone3 435
#define SIG_SETMASK 2

DATA allSignals<>(SB)/8, $0xffffffffffffffff
GLOBL allSignals<>(SB), RODATA|NOPTR, $8

// func clone(args *cloneArgs, size uintptr, steps *step, n uintptr, res *result) (pid uintptr)
//
// The child shares this stack and must leave it as it is: it only loads from
// registers, and never returns. A system call changes R0 alone.
TEXT ·clone(SB), NOSPLIT, $16-48
	MOVD	$SIG_SETMASK, R0
	MOVD	$allSignals<>(SB), R1
	MOVD	$old-8(SP), R2
	MOVD	$8, R3
	MOVD	$SYS_rt_sigprocmask, R8
	SVC

	MOVD	steps+16(FP), R9
	MOVD	n+24(FP), R10
	MOVD	res+32(FP), R11
	MOVD	args+0(FP), R0
	MOVD	size+8(FP), R1
	MOVD	$SYS_clone3, R8
	SVC
	CBZ	R0, child
	MOVD	R0, pid+40(FP)

	MOVD	$SIG_SETMASK, R0
	MOVD	$old-8(SP), R1
	MOVD	$0, R2
	MOVD	$8, R3
	MOVD	$SYS_rt_sigprocmask, R8
	SVC
	RET

child:
	MOVD	$0, R12	// number of steps begun
next:
	CMP	R10, R12
	BHS	exit
	ADD	$1, R12
	MOVD	R12, 0(R11)	// result.begun
	MOVD	0(R9), R8	// step.nr
	MOVD	8(R9), R0	// step.args
	MOVD	16(R9), R1
	MOVD	24(R9), R2
	MOVD	32(R9), R3
	MOVD	40(R9), R4
	ADD	$48, R9	// sizeof(step)
	CMN	$1, R8
	BEQ	writePID
	SVC
	CMN	$4095, R0
	BCC	next
	NEG	R0, R0
	MOVD	R0, 8(R11)	// result.errno
exit:
	MOVD	$127, R0
	MOVD	$SYS_exit_group, R8
	SVC
	B	exit

writePID:	// the digits of our pid, and a NUL, to R0
	MOVD	R0, R5
	MOVD	$SYS_getpid, R8
	SVC
	MOVD	$10, R1
	MOVD	R0, R2
count:
	ADD	$1, R5
	UDIV	R1, R2, R2
	CBNZ	R2, count
	MOVB	ZR, 0(R5)
digit:
	UDIV	R1, R0, R2
	MSUB	R1, R0, R2, R3	// R0 - R2*R1
	ADD	$'0', R3
	SUB	$1, R5
	MOVB	R3, 0(R5)
	MOVD	R2, R0
	CBNZ	R0, digit
	B	next
