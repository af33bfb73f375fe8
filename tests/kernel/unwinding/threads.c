/* Works in a second thread. */
#include <pthread.h>
#include "work.h"

static void *in_thread(void *unused)
{
	(void)unused;
	for (;;)
		outer(work);
	return 0;
}

int main(void)
{
	pthread_t thread;

	if (pthread_create(&thread, 0, in_thread, 0))
		return 2;
	pthread_join(thread, 0);
	return 0;
}
