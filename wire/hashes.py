"""Content hashes: the same frames give the same stack hash on every host and boot.

A frame packs to 16 bytes: the 64-bit hash of its module, then its offset (for named frames the
64-bit hash of the name). A stack's hash is BLAKE2b-128 over its packed frames, root first.
`_blake2` is imported directly: `hashlib` would load OpenSSL, 4 MB of resident memory.
"""

import struct
from _blake2 import blake2b
from collections.abc import Iterable, Mapping

from wire.schema import Batch, Module, Name

HOST_LABEL = "host"  # always the node's name, never a label of its own
_FRAME = struct.Struct("<QQ")


def module_hash(module: Module) -> int:
    """64-bit identity of a module: its kind and id (never its display name)."""
    digest = blake2b(bytes((module.kind,)) + module.id, digest_size=8, person=b"ff-module")
    return int.from_bytes(digest.digest(), "little")


def name_hash(name: Name) -> int:
    """64-bit identity of a named frame: function, file and first line."""
    text = f"{name.function}\0{name.file}\0{name.line}".encode()
    digest = blake2b(text, digest_size=8, person=b"ff-name")
    return int.from_bytes(digest.digest(), "little")


def pack_frame(module_hash64: int, offset: int) -> bytes:
    """The 16 bytes of one frame that enter the stack hash."""
    return _FRAME.pack(module_hash64, offset)


def stack_hash(packed_frames: bytes) -> bytes:
    """16-byte hash of a stack, from its packed frames, root first."""
    return blake2b(packed_frames, digest_size=16, person=b"ff-stack").digest()


def batch_digest(batch: Batch) -> bytes:
    """16 bytes that tell two batches with the same sequence number apart.

    Never of more columns: a batch that is sent again may have been stored by another release.
    """
    digest = blake2b(f"{batch.start_ns} {batch.duration_ns}\n".encode(), digest_size=16)
    for column in (batch.stack_hashes, batch.series_index, batch.counts):
        digest.update(column)
    return digest.digest()


def labels_hash(labels: Mapping[str, str]) -> bytes:
    """16 bytes that name a set of labels, whatever their order and without the host."""
    pairs = sorted(pair for pair in labels.items() if pair[0] != HOST_LABEL)
    text = "".join(f"{name}\0{value}\0" for name, value in pairs)
    return blake2b(text.encode(), digest_size=16, person=b"ff-labels").digest()


def definitions_check(hashes: Iterable[bytes]) -> bytes:
    """8 bytes of the hashes of defined stacks, in their order."""
    check = blake2b(digest_size=8, person=b"ff-defs")
    check.update(b"".join(hashes))
    return check.digest()


def batch_check(digest: bytes, labels: Iterable[bytes], hashes: Iterable[bytes]) -> bytes:
    """8 bytes of what the numbers of a short batch stand for: `labels_hash` of every series in
    order, and the hashes of its numbered rows in order. Nobody who does not know them can make it.
    """
    check = blake2b(digest, digest_size=8, person=b"ff-short")
    check.update(b"".join(labels))
    check.update(b"".join(hashes))
    return check.digest()
