#!/bin/sh
# Write the sources of 60 shared libraries and of a program with three threads that calls through
# all of them, into the folder $1, and compile them there. The program links 40 of them and loads
# 20 with dlopen. Every library calls the one behind it; each tenth works.
set -eu
cd "$1"
flags="-O2 -fomit-frame-pointer -fPIC -Wall"
number=0
while [ $number -lt 60 ]; do
	next=$((number + 1))
	{
		echo '#include <stddef.h>'
		echo 'typedef unsigned (*step)(unsigned, void *const *);'
		echo "__attribute__((noinline)) unsigned work_$number(unsigned state, unsigned turns)"
		echo '{'
		echo '	for (unsigned turn = 0; turn < turns; turn++)'
		echo "		state = state * 31 + (turn ^ (state >> $((number % 13 + 3))));"
		echo '	return state;'
		echo '}'
		echo "unsigned step_$number(unsigned state, void *const *next)"
		echo '{'
		[ $((number % 10)) -ne 9 ] || echo "	state = work_$number(state, 4000 + (state >> 17));"
		echo '	if (*next != NULL)'
		echo '		state = ((step)*next)(state, next + 1);'
		echo '	return state * 3 + 1;'
		echo '}'
	} >part_$number.c
	gcc $flags -shared -o libpart_$number.so part_$number.c
	number=$next
done
{
	echo '#include <dlfcn.h>'
	echo '#include <pthread.h>'
	echo '#include <stdio.h>'
	echo '#include <stdlib.h>'
	echo 'typedef unsigned (*step)(unsigned, void *const *);'
	number=0
	while [ $number -lt 40 ]; do
		echo "unsigned step_$number(unsigned, void *const *);"
		number=$((number + 1))
	done
	echo 'static void *steps[61];'
	echo 'static volatile unsigned sink;'
	echo '__attribute__((noinline)) static void *run(void *first)'
	echo '{'
	echo '	void *const *begin = first;'
	echo '	for (unsigned state = 1;;)'
	echo '		sink += state = ((step)*begin)(state * 1103515245 + 12345, begin + 1);'
	echo '	return NULL;'
	echo '}'
	echo 'int main(void)'
	echo '{'
	number=0
	while [ $number -lt 40 ]; do
		echo "	steps[$number] = (void *)step_$number;"
		number=$((number + 1))
	done
	echo '	for (int number = 40; number < 60; number++) {'
	echo '		char text[64];'
	echo '		snprintf(text, sizeof text, "libpart_%d.so", number);'
	echo '		void *library = dlopen(text, RTLD_NOW);'
	echo '		snprintf(text, sizeof text, "step_%d", number);'
	echo '		steps[number] = library ? dlsym(library, text) : NULL;'
	echo '		if (steps[number] == NULL)'
	echo '			abort();'
	echo '	}'
	echo '	for (int number = 0; number < 2; number++) {'
	echo '		pthread_t thread;'
	echo '		pthread_create(&thread, NULL, run, &steps[number * 10]);'
	echo '	}'
	echo '	run(&steps[20]);'
	echo '}'
} >libraries.c
# --no-as-needed: the program names all of them, so that all are loaded at its start.
names=$(number=0; while [ $number -lt 40 ]; do printf ' -lpart_%d' $number; number=$((number + 1)); done)
gcc $flags -o libraries libraries.c -L. -Wl,--no-as-needed,--disable-new-dtags,-rpath,"$PWD" $names -pthread -ldl
