/* Does 50, 30 and 20 parts of the same work in three functions. The turns are of different length
 * (about 10 to 40 ms), so that sampling can't march in step with them, and short, so that a profile
 * of some seconds shows 50:30:20 whatever share of a CPU the program gets. */
static volatile unsigned long sink;

#define WORK(steps)                                                                                \
	do {                                                                                       \
		unsigned long state = sink + 1;                                                    \
		/* Leaf functions have a frame pointer only when they use it. */                   \
		__asm__ volatile("" : : "r"(__builtin_frame_address(0)));                          \
		for (unsigned long i = 0; i < (steps); i++) {                                      \
			state = state * 2862933555777941757UL + 3037000493UL;                      \
			__asm__ volatile("" : "+r"(state));                                        \
		}                                                                                  \
		sink = state;                                                                      \
	} while (0)

__attribute__((noinline)) void half(unsigned long unit)
{
	WORK(50 * unit);
}
__attribute__((noinline)) void third(unsigned long unit)
{
	WORK(30 * unit);
}
__attribute__((noinline)) void fifth(unsigned long unit)
{
	WORK(20 * unit);
}

__attribute__((noinline)) void turn(unsigned long unit)
{
	half(unit);
	third(unit);
	fifth(unit);
	__asm__ volatile("");
}

int main(void)
{
	unsigned long random = 1;
	for (;;) {
		random = random * 6364136223846793005UL + 1442695040888963407UL;
		turn(70000 + (random >> 33) % 200000);
	}
}
