/* What the programs of this folder share: a function that works, and ends nowhere near a call. */
#ifndef WORK_H
#define WORK_H

static volatile unsigned long work_done;

/* About a millisecond. */
__attribute__((noipa, unused)) static void work(void)
{
	for (int i = 0; i < 300000; i++)
		work_done++;
}

/* Frames of their own: nothing after the call may be a tail. */
__attribute__((noipa, unused)) static void outer(void (*function)(void))
{
	function();
	work_done++;
}

#endif
