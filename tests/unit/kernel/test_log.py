import pytest

from node_agent.kernel.log import Message, find_complaint, newest, parse_messages

HEAD = "WARNING: CPU: 1 PID: 812 at kernel/bpf/hashtab.c:512 htab_map_update_elem+0x1/0x2"
REPORT = f"""<4>[  100.000001] ------------[ cut here ]------------
<4>[  100.000002] {HEAD}
<4>[  100.000003] Modules linked in: virtio_net ext4
<4>[  100.000004] CPU: 1 PID: 812 Comm: flamefleet-python Not tainted 6.1.0
<4>[  100.000005] ---[ end trace 0000000000000000 ]---
"""
OOPS = """<1>[  200.000000] BUG: unable to handle page fault for address: ffffc900deadbeef
<1>[  200.000001] #PF: supervisor read access in kernel mode
<4>[  200.000002] Oops: 0000 [#1] PREEMPT SMP NOPTI
<4>[  200.000003] Call Trace:
<4>[  200.000004]  <TASK>
<4>[  200.000005]  {frame}
<4>[  200.000006] ---[ end trace 0000000000000000 ]---
<6>[  200.000007] {after}
"""


def complaint(text: str, after: float = 0.0) -> str:
    return find_complaint(parse_messages(text.encode()), after)


def test_a_warning_in_bpf():
    assert complaint(REPORT) == HEAD
    assert complaint(REPORT, after=99.9) == HEAD
    assert complaint(REPORT, after=100.5) == ""


@pytest.mark.parametrize(
    ("frame", "after", "named"),
    [
        ("bpf_prog_1234567890abcdef_sample_cpu+0x11/0x22", "", True),
        ("perf_swevent_hrtimer+0x5f/0x130", "", True),
        ("__perf_event_overflow+0x52/0xf0", "", True),
        ("ext4_file_write_iter+0x5/0x9", "", False),
        ("? bpf_get_stack+0x5/0x9", "", False),  # a frame that may be left over on the stack
        ("Modules linked in: bpf_preload xt_bpf", "", False),
        ("ext4_file_write_iter+0x5/0x9", "bpf_jit: a later message", False),
    ],
)
def test_an_oops_counts_when_its_report_names_bpf_or_perf(frame, after, named):
    found = complaint(OOPS.format(frame=frame, after=after))
    assert bool(found) == named
    if named:
        assert found.startswith("BUG: unable to handle page fault")
        assert frame in found


@pytest.mark.parametrize(
    "text",
    [
        "<4>[  5.0] perf: interrupt took too long (2503 > 2500), lowering the rate to 79750",
        "<6>[  5.0] bpf_testmod: loading out-of-tree module",
        "<12>[  5.0] WARNING: written by a program: kernel/bpf/core.c",  # facility 1: user
        "<4>WARNING: without a time: kernel/bpf/core.c",
        "not a line of the kernel",
        "",
    ],
)
def test_what_is_no_complaint(text):
    assert complaint(text) == ""


def test_lines_with_a_caller_and_the_newest():
    messages = parse_messages(b"<6>[   12.500000][  T812] words\n<6>[    3.000000] first\n")
    assert messages == [Message(12.5, "words"), Message(3.0, "first")]
    assert newest(messages) == 12.5
    assert newest([]) == 0.0
