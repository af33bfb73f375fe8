/* A fork storm: `forks RATE [FOLDER]` starts that many processes a second, evenly, each of which
   works for a quarter of a millisecond and ends. Every second one runs a program of its own (this
   file). With FOLDER each of those is another file there: copies that are made when it starts, used
   in turn. */
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define COPIES 100

extern char **environ;
static volatile unsigned long work_done;

__attribute__((noipa)) static void work(void)
{
	for (int i = 0; i < 100000; i++)
		work_done++;
}

static void copy(const char *from, const char *to)
{
	static char room[1 << 16];
	int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0755);
	ssize_t size;

	if (in < 0 || out < 0)
		exit(2);
	while ((size = read(in, room, sizeof room)) > 0)
		if (write(out, room, (size_t)size) != size)
			exit(2);
	close(in);
	close(out);
}

int main(int argc, char **argv)
{
	static char names[COPIES][256];
	struct timespec next;
	long period_ns;

	if (argc < 2)
		return 2;
	if (strcmp(argv[1], "child") == 0) {
		work();
		return 0;
	}
	period_ns = 1000000000L / atol(argv[1]);
	for (int i = 0; i < COPIES; i++) {
		if (argc > 2) {
			snprintf(names[i], sizeof names[i], "%s/short-%d", argv[2], i);
			copy("/proc/self/exe", names[i]);
		} else {
			strcpy(names[i], "/proc/self/exe");
		}
	}
	signal(SIGCHLD, SIG_IGN);
	clock_gettime(CLOCK_MONOTONIC, &next);
	for (unsigned long number = 0;; number++) {
		if (number & 1) {
			char *words[] = {"short", "child", 0};
			pid_t child;

			posix_spawn(&child, names[number / 2 % COPIES], 0, 0, words, environ);
		} else if (fork() == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			work();
			_exit(0);
		}
		next.tv_nsec += period_ns;
		next.tv_sec += next.tv_nsec / 1000000000L;
		next.tv_nsec %= 1000000000L;
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, 0);
	}
}
