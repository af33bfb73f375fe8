"""A busy function whose first line is -1 in its own memory, as any user can write it there.

Argument: the seconds that it works.
"""

import ctypes
import sys
import time


def busy_at_no_line(turns):
    total = 0
    for turn in range(turns):
        total += turn
    return total


code = busy_at_no_line.__code__
for offset in range(0, 128, 4):  # wherever this version keeps it
    place = ctypes.c_int.from_address(id(code) + offset)
    if place.value == code.co_firstlineno:
        place.value = -1
        if code.co_firstlineno == -1:
            break
        place.value = code.co_firstlineno
assert code.co_firstlineno == -1
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    busy_at_no_line(100_000)
