/* Works in a handler, most of the time. The handler interrupts `interrupted`, anywhere. */
#include <signal.h>
#include <sys/time.h>
#include "work.h"

__attribute__((noipa)) static void in_handler(void)
{
	for (int i = 0; i < 8; i++)
		work();
	work_done++;
}

static void handle(int number)
{
	(void)number;
	outer(in_handler);
	work_done++;
}

__attribute__((noipa)) static void interrupted(void)
{
	for (int i = 0; i < 1000; i++)
		work_done++;
}

int main(void)
{
	struct itimerval timer = {{0, 10000}, {0, 10000}};

	signal(SIGALRM, handle);
	setitimer(ITIMER_REAL, &timer, 0);
	for (;;)
		outer(interrupted);
}
