/* Loaded by late.c. */
#include "work.h"

__attribute__((noipa)) void in_library(void)
{
	work();
	work_done++;
}
