/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What is particular to x86-64 in a walk: where the registers of the user's code are, where a
 * signal left them, and what the code that returns from a signal looks like.
 */
#ifndef FLAMEFLEET_REGISTERS_H
#define FLAMEFLEET_REGISTERS_H

#define USER_32_BIT_CS	   0x23
#define KERNEL_STACK_BYTES 16384
#define SIGRETURN_CODE	   0x0f0000000fc0c748ULL /* mov $15, %rax and half of syscall */
#define TRAMPOLINE_CODE	   0xc308c48348ULL	 /* add $8, %rsp; ret */
#define SIGNAL_FRAME_RBP   120 /* of struct ucontext: uc_mcontext.bp; sp and ip follow as below */

/* struct pt_regs of the kernel; the same order as the beginning of sample_context. */
struct saved_registers {
	__u64 r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax;
	__u64 ip, cs, flags, sp, ss;
};

/* What a signal handler returns to finds the interrupted code's registers in this order at rsp +
 * SIGNAL_FRAME_RBP (struct sigcontext_64 of the kernel). */
struct signal_registers {
	__u64 bp, bx, dx, ax, cx, sp, ip;
};

#endif
