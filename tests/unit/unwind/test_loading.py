"""Which processes are read first, and what becomes of those that there is no room or time for."""

from node_agent.collectors.stacks import ProcessKey
from node_agent.kernel.structs import MAX_MAPPINGS
from node_agent.processes.address_space import AddressSpace
from node_agent.processes.mappings import Mapping, Mappings
from node_agent.unwind.layouts import Layout
from node_agent.unwind.loading import MAX_LOADS, MAX_WAITING, KnownProcess, Loading
from node_agent.unwind.spaces import Kind


class _Space(AddressSpace):
    """Pages of files, none next to another, as /proc would have told them."""

    def __init__(self, tgid: int, pages: int = 1) -> None:
        super().__init__(tgid, 0)
        self.mappings = Mappings.of(
            tuple(
                Mapping(start, start + 4096, 0, 8, 1, 2, b"/bin/program")
                for start in range(1 << 20, (1 << 20) + 8192 * pages, 8192)
            )
        )

    def is_readable(self) -> bool:
        return True

    def refresh(self) -> None:
        self.version += 1


def _loading(pages: int = 1) -> Loading:
    return Loading(lambda key: _Space(key.tgid, pages), lambda tgid, mapping: Kind.NO_ROWS)


def _key(tgid: int) -> ProcessKey:
    return ProcessKey(tgid, 0, 0)


def test_what_is_sampled_again_is_read_before_what_was_seen_once() -> None:
    loading = _loading()
    loading.wait(_key(1))
    for tgid in range(2, 1000):
        loading.wait(_key(tgid))
    loading.wait(_key(1))
    found = [entry.process.tgid for entry in loading.read({}, 0.0)]
    assert found[0] == 1
    assert found[1:] == list(range(999, 999 - MAX_LOADS + 1, -1))


def test_a_full_queue_gives_up_the_one_not_seen_for_longest() -> None:
    loading = _loading()
    for tgid in range(MAX_WAITING + 3):
        loading.wait(_key(tgid))
    loading.wait(_key(3))  # the oldest that is left
    loading.wait(_key(MAX_WAITING + 3))
    assert loading.waiting == MAX_WAITING
    assert loading.lost == {"waiting_full": 4}
    read = {
        entry.process.tgid
        for _ in range(MAX_WAITING // MAX_LOADS)
        for entry in loading.read({}, 0.0)
    }
    assert read == {3, *range(5, MAX_WAITING + 4)}


def test_the_doubted_are_read_though_new_ones_never_cease_to_come() -> None:
    loading, old = _loading(), _key(7)
    known = KnownProcess(_Space(7), Layout(()), now_s=0.0)
    known.space.version += 1
    loading.compare(old, known)
    for tgid in range(100, 100 + 2 * MAX_LOADS):
        loading.wait(_key(tgid))
    found = [entry.process for entry in loading.read({old: known}, 0.0)]
    assert len(found) == MAX_LOADS
    assert old in found


def test_a_process_with_more_mappings_than_there_is_room_for_is_cut_and_counted() -> None:
    loading = _loading(5000)
    loading.wait(_key(1))
    ((_, _, parts),) = loading.read({}, 0.0)
    assert len(parts) == MAX_MAPPINGS
    assert loading.lost == {"mappings_cut": 1}
