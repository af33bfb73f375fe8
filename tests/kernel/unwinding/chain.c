/* main, outer, inner, work: the ordinary case. */
#include "work.h"

__attribute__((noipa)) static void inner(void)
{
	work();
	work_done++;
}

int main(void)
{
	for (;;)
		outer(inner);
}
