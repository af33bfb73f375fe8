/* Works for half a second, then becomes the program of its arguments. */
#include <time.h>
#include <unistd.h>
#include "work.h"

int main(int argc, char **argv)
{
	if (argc < 2)
		return 2;
	while (clock() < CLOCKS_PER_SEC / 2)
		outer(work);
	execv(argv[1], argv + 1);
	return 3;
}
