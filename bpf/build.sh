#!/bin/sh
# Compile every BPF program of this folder to a CO-RE object inside the agent's package.
# Needs clang (14 or newer), llvm-strip and libbpf's headers (Debian: clang llvm libbpf-dev).
set -eu
cd "$(dirname "$0")"
out=../node_agent/kernel/objects
sources=../node_agent/kernel/source
mkdir -p "$out" "$sources"
# The agent carries the sources too: where the kernel has no type information, bcc compiles them.
cp ./*.bpf.c ./*.h "$sources"
for source in *.bpf.c; do
	object=$out/${source%.c}.o
	# clang for the bpf target does not know Debian's multiarch folder, where asm/types.h lives.
	${CLANG:-clang} -O2 -g -Wall -Wextra -Werror -target bpf -D__TARGET_ARCH_x86 \
		-idirafter "/usr/include/$(uname -m)-linux-gnu" -c "$source" -o "$object.new"
	${LLVM_STRIP:-llvm-strip} -g "$object.new"
	mv "$object.new" "$object"
done
