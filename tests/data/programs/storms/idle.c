/* `idle NUMBER [PERIOD_MS]`: that many processes that sleep, and wake for a moment once in
   PERIOD_MS (10,000). They end with the one that started them. Writes a line when all are there. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

static volatile unsigned long work_done;

__attribute__((noipa)) static void work(void)
{
	for (int i = 0; i < 10000; i++)
		work_done++;
}

int main(int argc, char **argv)
{
	long number = argc > 1 ? atol(argv[1]) : 5000, period_ms = argc > 2 ? atol(argv[2]) : 10000;

	for (long i = 0; i < number; i++) {
		long first_ms = period_ms * i / number;
		struct timespec wait = {first_ms / 1000, first_ms % 1000 * 1000000};
		pid_t child = fork();

		if (child < 0)
			return 2;
		if (child)
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;) {
			nanosleep(&wait, 0);
			work();
			wait.tv_sec = period_ms / 1000;
			wait.tv_nsec = period_ms % 1000 * 1000000;
		}
	}
	puts("ready");
	fflush(stdout);
	for (;;)
		pause();
}
