/*
 * Something to see: three functions in the ratio 50:30:20 under one caller, built with frame
 * pointers and without any library, so that its stacks and their names are the same from the first
 * sample on, unwind rows or none. Runs until it is killed.
 */
static volatile unsigned long work;

#define LOAD(name, rounds)                                                                         \
	__attribute__((noinline)) static void name(void)                                           \
	{                                                                                          \
		for (int i = 0; i < (rounds); i++)                                                 \
			work++;                                                                    \
	}

LOAD(half_of_it, 500000)
LOAD(three_tenths, 300000)
LOAD(a_fifth, 200000)

__attribute__((noinline)) static void serve_requests(void)
{
	half_of_it();
	three_tenths();
	a_fifth();
	work++; /* no tail call: the frame has to stay */
}

__attribute__((used)) static void run(void)
{
	for (;;)
		serve_requests();
}

__asm__(".globl _start\n"
	".type _start, @function\n"
	"_start:\n"
	".cfi_startproc\n"
	".cfi_undefined rip\n"
	"	xor %ebp, %ebp\n"
	"	call run\n"
	".cfi_endproc\n"
	".size _start, . - _start\n");
