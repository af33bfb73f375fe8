/* Works 300 calls deep. */
#include "work.h"

__attribute__((noipa)) static void descend(int left)
{
	if (left > 0)
		descend(left - 1);
	else
		for (int i = 0; i < 1000; i++)
			work();
	work_done++; /* no tail call */
}

int main(void)
{
	for (;;)
		descend(300);
}
