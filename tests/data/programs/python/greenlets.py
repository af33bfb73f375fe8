"""Two greenlets that use CPU time 60:40, each under functions of its own, until it is killed.

Prints one line of JSON first, as modes.py does: the chains as the interpreter itself tells them.
"""

import json

from greenlet import getcurrent, greenlet
from modes import A_S, chains, look, spin_a, spin_b


def way_first(depth, work, amount):
    if depth:
        way_first(depth - 1, work, amount)
    else:
        work(amount)
        getcurrent().parent.switch()


def way_second(work, amount):
    work(amount)
    # in C code between two functions when the other one goes on
    [1].sort(key=lambda _: getcurrent().parent.switch())
    work(amount)
    getcurrent().parent.switch()


def go_on(greenlets):
    for running in greenlets:
        running.switch()


def in_turn(first, second):
    """Each goes on twice; they are begun at different depths of this one."""
    greenlets = [greenlet(way_first), greenlet(way_second)]
    greenlets[0].switch(5, *first)
    greenlets[1].switch(*second)
    go_on(greenlets[1:])
    go_on(greenlets)


def main():
    in_turn((look, "way_first"), (look, "way_second"))
    print(json.dumps(chains), flush=True)
    while True:
        in_turn((spin_a, 2 * A_S), (spin_b, A_S))


main()
