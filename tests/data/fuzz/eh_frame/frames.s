# Functions whose unwind information takes the rarer forms. Assembled by make_corpus.sh.
	.text
	.globl _start
	.type _start, @function
_start:
	.cfi_startproc
	.cfi_undefined rip
	xor %ebp, %ebp
	call pushes
	call realigned
	call stored
	hlt
	.cfi_endproc
	.size _start, .-_start

	.p2align 4
	.type pushes, @function
pushes:
	.cfi_startproc
	push %rbp
	.cfi_def_cfa_offset 16
	.cfi_offset rbp, -16
	push %rbx
	.cfi_def_cfa_offset 24
	.cfi_offset rbx, -24
	test %edi, %edi
	je 1f
	.cfi_remember_state
	pop %rbx
	.cfi_def_cfa_offset 16
	pop %rbp
	.cfi_restore rbp
	.cfi_def_cfa_offset 8
	ret
	.cfi_restore_state
1:	mov %rsp, %rbp
	.cfi_def_cfa_register rbp
	sub $0x1000, %rsp
	.skip 300, 0x90
	leave
	.cfi_def_cfa rsp, 8
	ret
	.cfi_endproc
	.size pushes, .-pushes

	.p2align 4
	.type realigned, @function
realigned:
	.cfi_startproc
	lea 8(%rsp), %r10
	.cfi_def_cfa r10, 0
	and $-64, %rsp
	push -8(%r10)
	push %rbp
	mov %rsp, %rbp
	.cfi_escape 0x10, 0x06, 0x02, 0x76, 0x00
	push %r10
	.cfi_escape 0x0f, 0x03, 0x76, 0x78, 0x06
	nop
	pop %r10
	.cfi_def_cfa r10, 0
	pop %rbp
	lea -8(%r10), %rsp
	.cfi_def_cfa rsp, 8
	ret
	.cfi_endproc
	.size realigned, .-realigned

	.p2align 4
	.type stored, @function
stored:
	.cfi_startproc
	mov %rsp, %rax
	.cfi_def_cfa_register rax
	push %rbp
	.cfi_offset rbp, -16
	sub $0x220, %rsp
	mov %rax, 0x218(%rsp)
	.cfi_escape 0x0f, 0x06, 0x77, 0x98, 0x04, 0x06, 0x23, 0x08
	nop
	mov 0x218(%rsp), %rax
	.cfi_def_cfa rax, 8
	mov %rax, %rsp
	.cfi_def_cfa rsp, 8
	ret
	.cfi_endproc
	.size stored, .-stored

	.p2align 4
	.type restore, @function
restore:
	.cfi_startproc
	.cfi_signal_frame
	nop
	mov $15, %rax
	syscall
	.cfi_endproc
	.size restore, .-restore

	.p2align 4
	.type linkage, @function
linkage:
	.cfi_startproc
	.cfi_escape 0x0f, 0x0b, 0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22
	.skip 32, 0x90
	.cfi_endproc
	.size linkage, .-linkage

	.p2align 4
	.type large, @function
large:
	.cfi_startproc
	.cfi_def_cfa_offset 0x100000
	nop
	.cfi_def_cfa_offset 12
	nop
	.cfi_escape 0x09, 0x06, 0x03
	nop
	.cfi_escape 0x16, 0x06, 0x02, 0x77, 0x10
	nop
	.cfi_escape 0x12, 0x07, 0x7e
	nop
	.cfi_escape 0x2e, 0x10
	ret
	.cfi_endproc
	.size large, .-large

	# Nothing describes this one: its instructions tell.
	.p2align 4
	.type silent, @function
silent:
	push %rbp
	push %rbx
	sub $0x18, %rsp
	test %edi, %edi
	jne 1f
	call pushes
1:	add $0x18, %rsp
	pop %rbx
	pop %rbp
	ret
	.size silent, .-silent
	.section .note.GNU-stack, "", @progbits
