"""Leave out of a batch what is wrong with its parts, so that they do not cost its samples. Pure.

Labels, facts and events hold words from a host that any of its users may have chosen, and they and
the stacks' ends only say more about samples. What is wrong with the samples' own columns is not
mended here: then it is not known which sample is of what, and the batch is refused.
"""

from collections import Counter
from collections.abc import Mapping

from msgspec.structs import replace

from wire import limits
from wire.faults import event_fault, is_label, is_reason
from wire.schema import Batch, Series

MAX_FACTS = 64
MAX_FACT_BYTES = 512
_FIRST_LABELS = ("service", "version")  # of too many, these stay


def clean_batch(batch: Batch) -> tuple[Batch, Counter[str]]:
    """`batch` without labels, facts, events and ends that cannot be kept, and how many they were,
    by reason."""
    dropped: Counter[str] = Counter()
    series = [clean_labels(one.labels) for one in batch.series]
    for one, labels in zip(batch.series, series, strict=True):
        dropped["label"] += len(one.labels) - len(labels)
    events = [event for event in batch.events if event_fault(event) is None]
    dropped["event"] = len(batch.events) - len(events)
    dropped["event_too_many"] = max(0, len(events) - limits.MAX_EVENTS)
    facts = {k: v for k, v in batch.facts.items() if _is_fact(k) and _is_fact(v)}
    facts = dict(list(facts.items())[:MAX_FACTS])
    dropped["fact"] = len(batch.facts) - len(facts)
    ends = [_clean_ends(field, len(series)) for field in (batch.stack_ends, batch.python_ends)]
    dropped["stack_end"] = len(batch.stack_ends) + len(batch.python_ends) - sum(map(len, ends))
    dropped = +dropped  # those that occurred
    if not dropped:
        return batch, dropped
    return replace(
        batch,
        series=[Series(labels) for labels in series],
        events=events[-limits.MAX_EVENTS :],
        facts=facts,
        stack_ends=ends[0],
        python_ends=ends[1],
    ), dropped


def clean_labels(labels: dict[str, str]) -> dict[str, str]:
    """The labels that can be kept; `labels` itself where that is all."""
    if len(labels) <= limits.MAX_LABELS and all(is_label(*pair) for pair in labels.items()):
        return labels
    order = sorted(labels, key=lambda name: (name not in _FIRST_LABELS, name))
    kept = [name for name in order if is_label(name, labels[name])]
    return {name: labels[name] for name in kept[: limits.MAX_LABELS]}


def _clean_ends(ends: Mapping[str, bytes], series: int) -> dict[str, bytes]:
    kept = {
        word: column
        for word, column in ends.items()
        if is_reason(word) and len(column) == 4 * series
    }
    return dict(list(kept.items())[: limits.MAX_STACK_ENDS])


def _is_fact(text: str) -> bool:
    return len(text.encode()) <= MAX_FACT_BYTES and "\0" not in text
