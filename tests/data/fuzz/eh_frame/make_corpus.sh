#!/bin/sh
# Makes the seeds of the fuzzers of unwind information from frames.s: needs gcc and binutils.
set -eu
cd "$(dirname "$0")"
# Nothing of the folder that it was built in may be in a file.
flags="-ffile-prefix-map=$PWD=/src -nostdlib -Wl,--build-id=none -Wl,-z,noseparate-code -Wl,-z,max-page-size=4096"
gcc $flags -static -o static.elf frames.s
gcc $flags -static -s -o stripped.elf frames.s
gcc $flags -shared -o shared.elf frames.s
gcc $flags -static -Wa,--gdwarf-4 -Wl,--no-ld-generated-unwind-info -Wl,--no-eh-frame-hdr -o no_header.elf frames.s
sed 's/\.text/.cfi_sections .debug_frame\n\t.text/' frames.s >debug.s
gcc $flags -static -o debug_frame.elf debug.s
sed 's/\.cfi_startproc/.cfi_startproc\n\t.cfi_personality 0x9b, _start\n\t.cfi_lsda 0x1b, _start/' frames.s >debug.s
gcc $flags -static -o augmented.elf debug.s
rm debug.s
