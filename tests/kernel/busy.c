/*
 * A load with a known profile: three functions in the ratio 50:30:20, called from a chain of
 * frames, built with frame pointers. Prints their addresses, then runs until it is killed.
 */
#include <stdio.h>
#include <stdlib.h>

#define DEPTH 20

static volatile unsigned long work;

#define LOAD(name, rounds)                                                                         \
	__attribute__((noinline)) static void name(void)                                           \
	{                                                                                          \
		for (int i = 0; i < (rounds); i++)                                                 \
			work++;                                                                    \
	}

LOAD(half, 500000)
LOAD(three_tenths, 300000)
LOAD(a_fifth, 200000)

__attribute__((noinline)) static void descend(int depth)
{
	if (depth > 0) {
		descend(depth - 1);
		work++; /* no tail call: the frame has to stay */
		return;
	}
	half();
	three_tenths();
	a_fifth();
}

int main(void)
{
	printf("%p %p %p\n", (void *)half, (void *)three_tenths, (void *)a_fifth);
	fflush(stdout);
	for (;;)
		descend(DEPTH);
}
