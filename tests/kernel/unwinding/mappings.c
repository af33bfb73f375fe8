/* Has 300 executable mappings that can't be merged, and works in `outer` behind all of them. */
#include <sys/mman.h>
#include "work.h"

int main(void)
{
	for (int i = 0; i < 300; i++) {
		char *page = mmap(0, 3 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (page == MAP_FAILED || mprotect(page + 4096, 4096, PROT_READ | PROT_EXEC))
			return 2;
	}
	for (;;)
		outer(work);
}
