/*
 * Something to see: three functions in the ratio 50:30:20 under one caller, built with frame
 * pointers. Runs until it is killed.
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

int main(void)
{
	for (;;)
		serve_requests();
}
