/* Reads the clock, which is the vdso's code. */
#include <time.h>

static volatile long sum;

__attribute__((noipa)) static void read_clock(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	sum += now.tv_nsec;
}

int main(void)
{
	for (;;)
		read_clock();
}
