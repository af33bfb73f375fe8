/*
 * Something to see: three functions in the ratio 50:30:20 under one caller, built with frame
 * pointers and without any library, so that its stacks and their names are the same from the first
 * sample on, unwind rows or none. Runs until it is killed.
 */
static unsigned long state;

/* Each step waits for the one before it, in a register: as long in one function as in another. */
#define LOAD(name, parts)                                                                          \
	__attribute__((noinline)) static void name(unsigned long unit)                             \
	{                                                                                          \
		register unsigned long x = state;                                                  \
		for (register unsigned long i = (parts)*unit; i > 0; i--) {                        \
			x = x * 2862933555777941757UL + 3037000493UL;                              \
			__asm__ volatile("" : "+r"(x));                                            \
		}                                                                                  \
		state = x;                                                                         \
	}

LOAD(half_of_it, 5)
LOAD(three_tenths, 3)
LOAD(a_fifth, 2)

__attribute__((noinline)) static void serve_requests(void)
{
	/* Turns of half a millisecond to three, all different: sampling can't march in step with
	 * them. */
	unsigned long unit = 40000 + (state >> 33) % 110000;
	half_of_it(unit);
	three_tenths(unit);
	a_fifth(unit);
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
