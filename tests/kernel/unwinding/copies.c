/* Copies zeros by system calls: most samples are of kernel code. */
#include <fcntl.h>
#include <unistd.h>

static char buffer[1 << 16];

__attribute__((noipa)) static int copy(int from, int to)
{
	long length = read(from, buffer, sizeof(buffer));

	return write(to, buffer, length) == length;
}

int main(void)
{
	int from = open("/dev/zero", O_RDONLY), to = open("/dev/null", O_WRONLY);

	while (copy(from, to))
		;
	return 2;
}
