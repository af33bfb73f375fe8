/*
 * A load with a known profile: three functions in the ratio 50:30:20, called from a chain of
 * frames, built with frame pointers. Prints their addresses and the one behind them, then runs
 * until it is killed.
 */
#include <stdio.h>

#define DEPTH 20

static unsigned long state;

/* Each step waits for the one before it, in a register: as long in one function as in another. */
#define LOAD(name, parts)                                                                          \
	__attribute__((noinline)) static void name(unsigned long unit)                             \
	{                                                                                          \
		unsigned long x = state;                                                           \
		for (unsigned long i = 0; i < (parts)*unit; i++) {                                 \
			x = x * 2862933555777941757UL + 3037000493UL;                              \
			__asm__ volatile("" : "+r"(x));                                            \
		}                                                                                  \
		state = x;                                                                         \
	}

LOAD(half, 5)
LOAD(three_tenths, 3)
LOAD(a_fifth, 2)

__attribute__((noinline)) static void descend(int depth)
{
	if (depth > 0) {
		descend(depth - 1);
		__asm__ volatile(""); /* no tail call: the frame has to stay */
		return;
	}
	/* Turns of half a millisecond to three, all different: sampling can't march in step with
	 * them. */
	unsigned long unit = 40000 + (state >> 33) % 110000;
	half(unit);
	three_tenths(unit);
	a_fifth(unit);
}

int main(void)
{
	printf("%p %p %p %p\n", (void *)half, (void *)three_tenths, (void *)a_fifth,
	       (void *)descend);
	fflush(stdout);
	for (;;)
		descend(DEPTH);
}
