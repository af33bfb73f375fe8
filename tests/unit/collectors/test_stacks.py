"""Decoding of the kernel's records."""

import ctypes
from collections.abc import Iterator

from node_agent.collectors.stacks import Decoder, ProcessKey, SampleKey
from node_agent.kernel.structs import SAMPLE_KERNEL_THREAD, SampleKeyC, StackEventC

KEY = SampleKeyC(11, 22, 33, 44, 55, 0, 0, b"worker")


def record(kernel: list[int], user: list[int], key: SampleKeyC = KEY) -> memoryview:
    event = StackEventC(key, 7, len(kernel), len(user))
    event.words[: len(kernel) + len(user)] = kernel + user
    size = StackEventC.words.offset + 8 * (len(kernel) + len(user))
    return memoryview(bytes(event)[:size])


def test_a_record_becomes_a_stack() -> None:
    (stack,) = Decoder().stacks([record([9, 8], [3, 2, 1])])

    assert stack.stack_key == 11
    assert stack.process == ProcessKey(tgid=44, start_ns=22, exec_id=55)
    assert stack.thread_name == "worker"
    assert stack.cgroup_id == 33
    assert stack.kernel_ips == (9, 8)
    assert stack.user_ips == (3, 2, 1)
    assert not stack.is_kernel_thread
    assert stack.interval == 7


def test_stacks_of_intervals_that_were_given_up_are_left_out() -> None:
    decoder = Decoder()  # the records are of interval 7

    assert list(decoder.stacks([record([9], [3])], first=8)) == []
    assert len(list(decoder.stacks([record([9], [3])], first=7))) == 1


def test_a_stack_is_given_out_when_its_record_has_left_the_buffer() -> None:
    left = []

    def read() -> Iterator[memoryview]:
        for number in range(3):
            yield record([number], [])
            left.append(number)

    seen = [(stack.kernel_ips, list(left)) for stack in Decoder().stacks(read())]

    assert seen == [((0,), [0]), ((1,), [0, 1]), ((2,), [0, 1, 2])]


def test_kernel_threads_are_marked() -> None:
    key = SampleKeyC(1, 2, 3, 4, 5, SAMPLE_KERNEL_THREAD, 0, b"kworker/0:1")

    (stack,) = Decoder().stacks([record([1], [], key)])

    assert stack.is_kernel_thread
    assert stack.user_ips == ()


def test_counts_are_read_with_their_keys() -> None:
    other = SampleKeyC(1, 2, 3, 4, 5, 1, 0, b"sixteen bytes it")  # no room for a zero byte

    counts = Decoder().counts(bytes(KEY) + bytes(other), bytes((ctypes.c_uint64 * 2)(3, 1 << 40)))

    assert counts == {
        SampleKey(11, 44, 22, 55, 33, "worker", 0): 3,
        SampleKey(1, 4, 2, 5, 3, "sixteen bytes it", 1): 1 << 40,
    }


def test_names_that_are_not_text_survive() -> None:
    key = SampleKeyC(1, 2, 3, 4, 5, 0, 0, b"\xff;\n")

    (found,) = Decoder().counts(bytes(key), bytes(ctypes.c_uint64(1)))

    assert found.thread_name == "�;\n"


def test_what_is_remembered_of_names_is_bounded() -> None:
    decoder = Decoder()
    for number in range(10_000):
        key = SampleKeyC(1, 2, 3, 4, 5, 0, 0, str(number).encode())
        decoder.counts(bytes(key), bytes(ctypes.c_uint64(1)))

    assert len(decoder._names) <= 4096
