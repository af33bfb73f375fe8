/* A parent that works, and one after another children that don't exec and end within a second. */
#include <signal.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>
#include "work.h"

__attribute__((noipa)) static void in_child(void)
{
	work();
	work_done++;
}

__attribute__((noipa)) static void in_parent(void)
{
	work();
	work_done++;
}

int main(void)
{
	signal(SIGCHLD, SIG_IGN);
	for (;;) {
		if (fork() == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			while (clock() < CLOCKS_PER_SEC / 4)
				outer(in_child);
			_exit(0);
		}
		for (int i = 0; i < 300; i++)
			outer(in_parent);
	}
}
