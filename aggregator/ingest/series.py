"""Sets of labels and their identity, and what of a batch has no number yet."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

from wire.hashes import HOST_LABEL


@dataclass(frozen=True)
class SeriesKey:
    """A set of labels: `labels_json` is canonical, `key_hash` its BLAKE2b-128."""

    key_hash: bytes
    labels_json: str
    service: str
    version: str

    @property
    def weight(self) -> int:
        """How many sets of labels of the usual size it takes."""
        return 1 + len(self.labels_json) // 512


@dataclass(frozen=True)
class Unnumbered:
    """What of a batch the node wants numbers for: distinct hashes, sorted, 16 bytes each, and sets
    of labels, None for one that gets none."""

    hashes: bytes
    series: tuple[SeriesKey | None, ...]


def series_key(labels: Mapping[str, str]) -> SeriesKey:
    """The identity of a set of labels, whatever their order."""
    kept = {name: value for name, value in labels.items() if name != HOST_LABEL}
    text = json.dumps(kept, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    key_hash = blake2b(text.encode(), digest_size=16, person=b"ff-series").digest()
    return SeriesKey(key_hash, text, kept.get("service", ""), kept.get("version", ""))
