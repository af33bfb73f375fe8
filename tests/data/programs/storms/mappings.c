/* `mappings [NUMBER]`: works behind NUMBER (5,000) executable mappings of its own file that are at
   as many distances from it, so that no two can be told by one rule. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static volatile unsigned long work_done;

__attribute__((noipa)) static void work(void)
{
	for (int i = 0; i < 300000; i++)
		work_done++;
}

__attribute__((noipa)) static void turn(void)
{
	work();
	work_done++;
}

int main(int argc, char **argv)
{
	long number = argc > 1 ? atol(argv[1]) : 5000;
	int file = open("/proc/self/exe", O_RDONLY);

	for (long i = 0; i < number; i++) {
		char *room = mmap(0, 3 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (room == MAP_FAILED || mmap(room + 4096, 4096, PROT_READ | PROT_EXEC,
					       MAP_PRIVATE | MAP_FIXED, file, 0) == MAP_FAILED)
			return 2;
	}
	for (;;)
		turn();
}
