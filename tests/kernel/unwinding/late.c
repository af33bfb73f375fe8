/*
 * Loads the library of its first argument after half a second of work, then works there, under the
 * name of its second.
 */
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>
#include "work.h"

int main(int argc, char **argv)
{
	void (*in_library)(void);
	void *library;

	if (argc < 3)
		return 2;
	while (clock() < CLOCKS_PER_SEC / 2)
		outer(work);
	library = dlopen(argv[1], RTLD_NOW);
	if (!library)
		return 3;
	in_library = (void (*)(void))dlsym(library, "in_library");
	prctl(PR_SET_NAME, argv[2]);
	for (;;)
		outer(in_library);
}
