/*
 * Stacks of every kind of frame that the kernel program can walk, and of some that it can't. The
 * rows are written by hand, beside the code that they describe: section .rows is an array of
 * struct unwind_row of bpf/events.h.
 *
 * usage: walk MODE, a letter (see _start); spins until it is killed. Static, without a libc.
 */
#define ROW_UNSUPPORTED	  0
#define ROW_CFA_RSP	  1
#define ROW_CFA_RBP	  2
#define ROW_CFA_PLT	  3
#define ROW_END		  4
#define ROW_SIGNAL	  5
#define ROW_CFA_RSP_DEREF 6
#define ROW_CFA_RBP_DEREF 7

#define SYS_read	 0
#define SYS_open	 2
#define SYS_rt_sigaction 13
#define SYS_rt_sigreturn 15
#define SYS_fork	 57
#define SIGSEGV		 11
#define SA_RESTORER	 0x04000000

	/* How the code from here on finds its caller: numbers are words, `rbp` as in events.h. */
	.macro ROW rule, cfa=0, rbp=0
	.pushsection .rows, "", @progbits
	.long 99f - image
	.short \cfa
	.byte \rbp & 0xff, \rule
	.popsection
99:
	.endm

	.macro FUNCTION name
	.p2align 4
	.globl \name
\name:
	.endm

	.text
	.globl image
image:
	.skip 16, 0xcc

FUNCTION spin
	ROW ROW_CFA_RSP, 1
1:	jmp 1b

FUNCTION by_rbp_deref /* realigns its stack as GCC does; its frame begins 8 bytes off */
	ROW ROW_CFA_RSP, 1
	lea 8(%rsp), %r10
	and $-64, %rsp
	push -8(%r10)
	push %rbp
	mov %rsp, %rbp
	push %r10
	ROW ROW_CFA_RBP_DEREF, -1, 0
	sub $72, %rsp
	call spin
	ud2

FUNCTION by_rsp_deref /* realigns its stack as OpenSSL's assembly does */
	ROW ROW_CFA_RSP, 1
	mov %rsp, %rax
	push %rbx
	push %rbp
	sub $40, %rsp
	and $-64, %rsp
	mov %rax, 24(%rsp)
	ROW ROW_CFA_RSP_DEREF, 3, (1 | (-3 << 3))
	mov $7, %ebp
	call by_rbp_deref
	ud2

FUNCTION by_rbp_far /* rbp is not saved beside the return address */
	ROW ROW_CFA_RSP, 1
	push %rbx
	push %rbp
	ROW ROW_CFA_RSP, 3, -3
	mov $5, %ebp
	call by_rsp_deref
	ud2

FUNCTION by_rbp
	ROW ROW_CFA_RSP, 1
	push %rbp
	ROW ROW_CFA_RSP, 2, -2
	mov %rsp, %rbp
	ROW ROW_CFA_RBP, 2, -2
	sub $8008, %rsp
	call by_rbp_far
	ud2

FUNCTION by_rsp
	ROW ROW_CFA_RSP, 1
	sub $24, %rsp
	ROW ROW_CFA_RSP, 4
	call by_rbp
	ud2

	.p2align 4
	.globl plt_entry
plt_entry:
	ROW ROW_CFA_PLT
	.byte 0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00 /* a no-op of 6 bytes, where a PLT jumps */
	push $0x1234567 /* up to byte 11 */
1:	jmp 1b

FUNCTION deep /* calls itself as often as ecx says */
	ROW ROW_CFA_RSP, 1
	sub $8, %rsp
	ROW ROW_CFA_RSP, 2
	dec %ecx
	jz 1f
	call deep
	ud2
1:	call spin
	ud2

FUNCTION before_fault
	ROW ROW_CFA_RSP, 100 /* wrong for what follows: the first instruction there is not in here */
	nop

	.globl fault
fault:
	ROW ROW_CFA_RSP, 1
	mov %rax, 0

FUNCTION handler
	ROW ROW_CFA_RSP, 1
	sub $8, %rsp
	ROW ROW_CFA_RSP, 2
	mov $3, %ebp
	call spin
	ud2

	.p2align 4
	ROW ROW_SIGNAL
	nop /* one byte early, as libc: a return address less one lies here */
	.globl restorer
restorer:
	mov $SYS_rt_sigreturn, %rax /* in the words of musl and Go, which have no row for it */
	syscall

FUNCTION read_zero
	ROW ROW_CFA_RSP, 1
	push %rbp
	ROW ROW_CFA_RSP, 2, -2
	mov $SYS_open, %eax
	lea dev_zero(%rip), %rdi
	xor %esi, %esi
	syscall
	mov %eax, %ebx
1:	mov $SYS_read, %eax
	mov %ebx, %edi
	lea buffer(%rip), %rsi
	mov $65536, %edx
	syscall
	jmp 1b

FUNCTION odd_rbp
	ROW ROW_UNSUPPORTED, 1
	mov $1, %ebp
1:	jmp 1b

FUNCTION unreadable
	ROW ROW_CFA_RBP, 2, -2
	mov $0x7fffffffe000, %rbp
1:	jmp 1b

FUNCTION framed_leaf /* with frame pointers: needs no rows */
	ROW ROW_UNSUPPORTED
	push %rbp
	mov %rsp, %rbp
1:	jmp 1b

FUNCTION framed
	push %rbp
	mov %rsp, %rbp
	sub $40, %rsp
	call framed_leaf
	ud2

FUNCTION _start
	ROW ROW_END
	mov 16(%rsp), %rax
	movzbl (%rax), %eax
	xor %ebp, %ebp
	cmp $'r', %al
	je rules
	cmp $'p', %al
	je plt
	cmp $'d', %al
	je deep_100
	cmp $'t', %al
	je deep_200
	cmp $'s', %al
	je signal
	cmp $'k', %al
	je kernel
	cmp $'u', %al
	je unsupported
	cmp $'f', %al
	je faulty
	cmp $'b', %al
	je frames
	cmp $'c', %al
	je fork
	ud2
rules:	call by_rsp
plt:	call plt_entry
deep_100:
	mov $100, %ecx
	call deep
deep_200:
	mov $200, %ecx
	call deep
signal:	mov $SYS_rt_sigaction, %eax
	mov $SIGSEGV, %edi
	lea action(%rip), %rsi
	xor %edx, %edx
	mov $8, %r10d
	syscall
	call fault
kernel:	call read_zero
unsupported:
	call odd_rbp
faulty:	call unreadable
frames:	call framed
fork:	mov $SYS_fork, %eax
	syscall
	call by_rsp /* both of them */
	ud2

	.data
	.p2align 3
action:
	.quad handler, SA_RESTORER, restorer, 0
dev_zero:
	.asciz "/dev/zero"

	.bss
buffer:
	.skip 65536
