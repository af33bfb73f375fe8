"""What identifies an ELF file that has no GNU build id. Pure; the same on nodes and at the centre.

`_blake2` instead of hashlib, which loads OpenSSL (4 MB that the agent may not weigh).
"""

from _blake2 import blake2b

FILE_ENDS_BYTES = 4_096


def go_build_id(content: bytes) -> bytes:
    """20 bytes for Go's own build id: its text is longer than the wire allows."""
    return blake2b(content, digest_size=20, person=b"ff-go-id").digest()


def file_build_id(size: int, head: bytes, tail: bytes) -> bytes:
    """20 bytes for a file of `size` bytes by its first and last FILE_ENDS_BYTES."""
    digest = blake2b(size.to_bytes(8, "little"), digest_size=20, person=b"ff-file-id")
    digest.update(head)
    digest.update(tail)
    return digest.digest()
