"""Orders of the centre on their way from shipper to sampler. Pure.

The sampler reads files that the networked process wrote, so every field is checked: an order can
only name a build id or stack hashes, never a path or a command.
"""

from typing import Any

from wire.schema import ModuleKind

MAX_HASHES = 4_096
_SYMBOL_KINDS = (ModuleKind.NATIVE, ModuleKind.KERNEL, ModuleKind.KERNEL_MODULE)


def symbols(module_kind: int, build_id: bytes) -> dict[str, Any]:
    """The order to extract the symbols of a build id. Raises ValueError when it cannot be one."""
    return check({"kind": "symbols", "module_kind": module_kind, "build_id": build_id.hex()})


def define(hashes: list[bytes]) -> dict[str, Any]:
    """The order to define stacks (at most MAX_HASHES) again when they are seen next."""
    return check({"kind": "define", "hashes": [stack_hash.hex() for stack_hash in hashes]})


def check(directive: Any) -> dict[str, Any]:
    """`directive`, reduced to its known fields. Raises ValueError when it is no known order."""
    if not isinstance(directive, dict):
        raise ValueError("a directive must be an object")
    if directive.get("kind") == "symbols":
        module_kind, build_id = directive.get("module_kind"), directive.get("build_id")
        if module_kind not in _SYMBOL_KINDS or isinstance(module_kind, bool):
            raise ValueError(f"module_kind {module_kind!r} has no symbols")
        if not 1 <= len(_bytes(build_id)) <= 64:
            raise ValueError("a build id must have 1 to 64 bytes")
        return {"kind": "symbols", "module_kind": int(module_kind), "build_id": build_id}
    if directive.get("kind") == "define":
        hashes = directive.get("hashes")
        if not isinstance(hashes, list) or not 1 <= len(hashes) <= MAX_HASHES:
            raise ValueError(f"hashes must be a list of 1 to {MAX_HASHES}")
        if any(len(_bytes(stack_hash)) != 16 for stack_hash in hashes):
            raise ValueError("a stack hash must have 16 bytes")
        return {"kind": "define", "hashes": hashes}
    raise ValueError(f"directive kind {directive.get('kind')!r} is unknown")


def file_name(directive: dict[str, Any], now_ns: int) -> str:
    """A name that is the same for the same symbols order, and new for every other order."""
    if directive["kind"] == "symbols":
        return f"symbols-{directive['module_kind']}-{directive['build_id']}.json"
    return f"define-{now_ns:020d}.json"


def _bytes(text: Any) -> bytes:
    if not isinstance(text, str) or text != text.lower() or not text.isalnum():
        raise ValueError("not lower-case hexadecimal")
    return bytes.fromhex(text)
