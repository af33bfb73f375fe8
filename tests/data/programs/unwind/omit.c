/* A C program without frame pointers: system calls apart, half of its time is in `parse`, and the
   rest in a sort of libc that calls back, and in a recursion. No turn is as long as the one before,
   or a sampler that is as regular would see one half more often than the other. */
#include <stdlib.h>

#define NOINLINE __attribute__((noinline, noclone))

static volatile unsigned sink;
static int numbers[2048];

/* 0 to 65,535. */
static unsigned draw(void)
{
	static unsigned state = 1;
	state = state * 1103515245 + 12345;
	return state >> 16;
}

NOINLINE unsigned digit(unsigned state, unsigned turn)
{
	return state * 31 + (turn ^ (state >> 7));
}

NOINLINE unsigned parse(unsigned count)
{
	unsigned state = 1;
	for (unsigned turn = 0; turn < count; turn++)
		state = digit(state, turn);
	sink += state;
	return state + 1;
}

NOINLINE int compare(const void *left, const void *right)
{
	int a = *(const int *)left, b = *(const int *)right;
	return a < b ? -1 : a > b;
}

NOINLINE unsigned order(unsigned seed)
{
	for (int at = 0; at < 2048; at++)
		numbers[at] = (int)(seed = seed * 1103515245 + 12345);
	qsort(numbers, 2048, sizeof *numbers, compare);
	return (unsigned)numbers[7];
}

NOINLINE unsigned descend(unsigned depth, unsigned count)
{
	char room[64];
	unsigned result = 0;
	room[count % 64] = (char)depth;
	__asm__ volatile("" : : "r"(room) : "memory");
	if (depth == 0) {
		for (unsigned turn = 0; turn < count; turn++)
			result = digit(result, turn + (unsigned)room[turn % 64]);
		return result;
	}
	result = descend(depth - 1, count);
	return result + (unsigned)room[depth % 64];
}

NOINLINE unsigned turn(unsigned number)
{
	unsigned result = parse(68000 + draw());
	result += order(number);
	result += descend(40, 7000 + draw());
	sink += result;
	return result;
}

int main(void)
{
	for (unsigned number = 1;; number++)
		sink += turn(number);
}
