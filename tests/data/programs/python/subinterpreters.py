"""A function of a subinterpreter that uses CPU time, called by one of the main interpreter's."""

import json
import sys
import threading

if sys.version_info >= (3, 13):
    import _interpreters as interpreters
else:
    import _xxsubinterpreters as interpreters

CODE = """\
def spin_a(rounds):
    x = 0
    for i in range(rounds):
        x += i * i

def way_inside():
    while True:
        spin_a(10_000)

way_inside()
"""


def way_outside():
    made = interpreters.create()
    if sys.version_info >= (3, 13):
        interpreters.exec(made, CODE)
    else:
        interpreters.run_string(made, CODE)


print(json.dumps({}), flush=True)
if sys.argv[1:] == ["thread"]:
    threading.Thread(target=way_outside).start()
else:
    way_outside()
