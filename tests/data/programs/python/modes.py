"""Two functions that use CPU time 60:40, called in many ways, in two threads, until it is killed.

Prints one line of JSON first: for each way the chain of (function, file, first line), from the
thread's entry to the function that calls `spin_a` or `spin_b`, as the interpreter itself tells it.
"""

import ctypes
import json
import random
import re
import sys
import threading
import time

sys.setrecursionlimit(5000)
A_S, B_S = 0.0018, 0.0012
DEPTH, DEEP = 10, 150
chains = {}


def spin_a(budget_s):
    begun = time.thread_time()
    x = 0
    while time.thread_time() - begun < budget_s:
        for i in range(200):
            x += i * i


def spin_b(budget_s):
    begun = time.thread_time()
    x = 0
    while time.thread_time() - begun < budget_s:
        for i in range(200):
            x += i * i


def look(way):
    """Takes the place of spin_a once, to write the chain down."""
    frame = sys._getframe(1)
    chain = []
    while frame is not None:
        code = frame.f_code
        name = getattr(code, "co_qualname", code.co_name)
        chain.append((name, code.co_filename, code.co_firstlineno))
        frame = frame.f_back
    chains.setdefault(way, []).append(chain[::-1])


def recurse(depth, work, amount):
    if depth:
        recurse(depth - 1, work, amount)
    else:
        work(amount)


def produce(work, amount):
    work(amount)
    yield 1


def produce_from(work, amount):
    yield from produce(work, amount)


class Work:
    def __init__(self, work, amount):
        self.work, self.amount = work, amount

    def method(self, *_):
        self.work(self.amount)
        return 0


def way_plain(work, amount):
    work(amount)


def way_recursion(work, amount):
    recurse(DEPTH, work, amount)


def way_deep(work, amount):
    recurse(DEEP, work, amount)


def way_generator(work, amount):
    for _ in produce_from(work, amount):
        pass


def way_sort(work, amount):
    [1].sort(key=Work(work, amount).method)


def way_map(work, amount):
    list(map(lambda _: work(amount), [1]))  # noqa: C417 - the call by C code is the point


def way_regex(work, amount):
    def replace(_match):
        work(amount)
        return ""

    re.sub("x", replace, "x")


def way_ctypes(work, amount):
    two = (ctypes.c_int * 2)(2, 1)
    libc.qsort(two, 2, ctypes.sizeof(ctypes.c_int), COMPARE(Work(work, amount).method))


COMPARE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
libc = ctypes.CDLL(None)
WAYS = (
    way_plain,
    way_recursion,
    way_deep,
    way_generator,
    way_sort,
    way_map,
    way_regex,
    way_ctypes,
)
looked = threading.Barrier(3)


def work_forever():
    for way in WAYS:
        way(look, way.__name__)
    looked.wait()
    looked.wait()
    while True:
        for way in WAYS:
            scale = random.uniform(0.5, 1.5)  # sampling can't march in step with such turns
            way(spin_a, scale * A_S)
            way(spin_b, scale * B_S)


def announce():
    looked.wait()
    print(json.dumps(chains), flush=True)
    looked.wait()


def main():
    threading.Thread(target=announce, daemon=True).start()
    threading.Thread(target=work_forever, daemon=True).start()
    work_forever()


if __name__ == "__main__":
    main()
