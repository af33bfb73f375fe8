/* Hardly ever the same stack twice: 20 calls deep, each of one of two functions, in all 2^20 ways
   one after the other. Each stack is there for about 20 microseconds. */
static volatile unsigned long work_done;

__attribute__((noipa)) static void leaf(void)
{
	for (int i = 0; i < 8000; i++)
		work_done++;
}

__attribute__((noipa)) static void even(unsigned way, int depth);
__attribute__((noipa)) static void odd(unsigned way, int depth);

/* Not the last thing that a function does, or it would be no frame. */
#define DESCEND                                                                                    \
	if (depth == 0)                                                                            \
		leaf();                                                                            \
	else if (way & 1)                                                                          \
		odd(way >> 1, depth - 1);                                                          \
	else                                                                                       \
		even(way >> 1, depth - 1);                                                         \
	work_done++;

static void even(unsigned way, int depth)
{
	DESCEND
}

static void odd(unsigned way, int depth)
{
	DESCEND
	work_done++;
}

int main(void)
{
	/* a stride that is odd, so that neighbours differ from the root on */
	for (unsigned way = 1;; way = (way * 5 + 3) & ((1u << 20) - 1))
		even(way, 20);
}
