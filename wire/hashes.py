"""Content hashes: the same frames give the same stack hash on every host and boot.

A frame packs to 16 bytes: the 64-bit hash of its module, then its offset (for named frames the
64-bit hash of the name). A stack's hash is BLAKE2b-128 over its packed frames, root first.
`_blake2` is imported directly: `hashlib` would load OpenSSL, 4 MB of resident memory.
"""

import struct
from _blake2 import blake2b

from wire.schema import Module, Name

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
