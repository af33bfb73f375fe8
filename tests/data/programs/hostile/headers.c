/* Maps an ELF file whose headers lie, and works in it, as any user can.
 *
 * Arguments: the file, which is made; the offset of its program headers; the offset of the note
 * that the only one of them tells of, where the first offset leads to it (64).
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	static unsigned char file[8192] = {0x7f, 'E', 'L', 'F', 2, 1, 1};
	unsigned long headers = strtoul(argv[2], 0, 0), note = strtoul(argv[3], 0, 0), size = 36;
	int fd = open(argv[1], O_RDWR | O_CREAT | O_TRUNC, 0755);

	file[16] = 3;  /* ET_DYN */
	file[18] = 62; /* x86-64 */
	file[20] = 1;
	memcpy(file + 32, &headers, 8); /* e_phoff */
	file[52] = 64;			/* e_ehsize */
	file[54] = 56;			/* e_phentsize */
	file[56] = 1;			/* e_phnum */
	file[64] = 4;			/* PT_NOTE */
	memcpy(file + 72, &note, 8);	/* p_offset */
	memcpy(file + 96, &size, 8);	/* p_filesz */
	file[4096] = 0xeb;		/* jmp to itself */
	file[4097] = 0xfe;
	if (write(fd, file, sizeof file) != sizeof file)
		return 1;
	((void (*)(void))((char *)mmap(0, sizeof file, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) +
			  4096))();
}
