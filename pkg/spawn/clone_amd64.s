//go:build linux

#include "textflag.h"

#define SYS_rt_sigprocmask 14
#define SYS_getpid 39
#define SYS_exit_group 231
#define SYS_clone3 435
#define SIG_SETMASK 2

DATA allSignals<>(SB)/8, $0xffffffffffffffff
GLOBL allSignals<>(SB), RODATA|NOPTR, $8

// func clone(args *cloneArgs, size uintptr, steps *step, n uintptr, res *result) (pid uintptr)
//
// The child shares this stack and must leave it as it is: it only loads from
// registers, and never returns. A system call changes AX, CX and R11 alone.
TEXT ·clone(SB), NOSPLIT, $16-48
	MOVQ	$SYS_rt_sigprocmask, AX
	MOVQ	$SIG_SETMASK, DI
	LEAQ	allSignals<>(SB), SI
	LEAQ	old-8(SP), DX
	MOVQ	$8, R10
	SYSCALL

	MOVQ	steps+16(FP), R12
	MOVQ	n+24(FP), R13
	MOVQ	res+32(FP), BX
	MOVQ	args+0(FP), DI
	MOVQ	size+8(FP), SI
	MOVQ	$SYS_clone3, AX
	SYSCALL
	TESTQ	AX, AX
	JZ	child
	MOVQ	AX, pid+40(FP)

	MOVQ	$SYS_rt_sigprocmask, AX
	MOVQ	$SIG_SETMASK, DI
	LEAQ	old-8(SP), SI
	MOVQ	$0, DX
	MOVQ	$8, R10
	SYSCALL
	RET

child:
	MOVQ	$0, R9	// number of steps begun
next:
	CMPQ	R9, R13
	JCC	exit
	INCQ	R9
	MOVQ	R9, 0(BX)	// result.begun
	MOVQ	0(R12), AX	// step.nr
	MOVQ	8(R12), DI	// step.args
	MOVQ	16(R12), SI
	MOVQ	24(R12), DX
	MOVQ	32(R12), R10
	MOVQ	40(R12), R8
	ADDQ	$48, R12	// sizeof(step)
	CMPQ	AX, $-1
	JEQ	writePID
	SYSCALL
	CMPQ	AX, $0xfffffffffffff001
	JCS	next
	NEGQ	AX
	MOVQ	AX, 8(BX)	// result.errno
exit:
	MOVQ	$127, DI
	MOVQ	$SYS_exit_group, AX
	SYSCALL
	JMP	exit

writePID:	// the digits of our pid, and a NUL, to DI
	MOVQ	$SYS_getpid, AX
	SYSCALL
	MOVQ	AX, R8
	MOVQ	$10, CX
count:
	INCQ	DI
	XORL	DX, DX
	DIVQ	CX
	TESTQ	AX, AX
	JNZ	count
	MOVB	$0, 0(DI)
	MOVQ	R8, AX
digit:
	DECQ	DI
	XORL	DX, DX
	DIVQ	CX
	ADDL	$'0', DX
	MOVB	DX, 0(DI)
	TESTQ	AX, AX
	JNZ	digit
	JMP	next
