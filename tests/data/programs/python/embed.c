/* A program with CPython as a library: runs the script that it is given. */
#include <Python.h>

int main(int argc, char **argv)
{
	FILE *script = argc > 1 ? fopen(argv[1], "r") : NULL;

	if (!script)
		return 1;
	Py_Initialize();
	return PyRun_SimpleFile(script, argv[1]);
}
