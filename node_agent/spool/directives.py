"""Orders of the centre on their way from shipper to sampler. Pure.

The sampler reads files that the networked process wrote, so every field is checked: an order can
only name a build id, stack hashes, or a profile's number, rate and time, never a path or a command.
"""

import math
from typing import Any

from wire.limits import MAX_PROFILE_S, MAX_RATE_HZ, PROFILE_STEP_S
from wire.schema import ModuleKind, ProfileDirective

MAX_HASHES = 4_096
MAX_BEGIN_WITHIN_S = 3_600
_MAX_ID = 1 << 53
_MAX_UNIX_S = 1 << 40
_SYMBOL_KINDS = (ModuleKind.NATIVE, ModuleKind.KERNEL, ModuleKind.KERNEL_MODULE)


def symbols(module_kind: int, build_id: bytes) -> dict[str, Any]:
    """The order to extract the symbols of a build id. Raises ValueError when it cannot be one."""
    return check({"kind": "symbols", "module_kind": module_kind, "build_id": build_id.hex()})


def define(hashes: list[bytes]) -> dict[str, Any]:
    """The order to define stacks (at most MAX_HASHES) again when they are seen next."""
    return check({"kind": "define", "hashes": [stack_hash.hex() for stack_hash in hashes]})


def profile(asked: ProfileDirective, now_s: float) -> dict[str, Any]:
    """The order to begin a profile; its end by this host's clock, `now_s` (Unix), goes along."""
    within_s = min(asked.begin_within_s, MAX_BEGIN_WITHIN_S)
    return check(
        {
            "kind": "profile",
            "id": asked.id,
            "collector": asked.collector,
            "rate_hz": asked.rate_hz,
            "seconds": asked.seconds,
            "begin_before_s": now_s + within_s,
        }
    )


def profile_end(number: int) -> dict[str, Any]:
    """The order to end a profile, or not to begin it."""
    return check({"kind": "profile_end", "id": number})


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
    if directive.get("kind") == "profile":
        return _check_profile(directive)
    if directive.get("kind") == "profile_end":
        return {"kind": "profile_end", "id": _whole(directive, "id", 1, _MAX_ID)}
    raise ValueError(f"directive kind {directive.get('kind')!r} is unknown")


def file_name(directive: dict[str, Any], now_ns: int) -> str:
    """A name that is the same for the same build id or profile, and new for all other orders."""
    if directive["kind"] == "symbols":
        return f"symbols-{directive['module_kind']}-{directive['build_id']}.json"
    if directive["kind"] in ("profile", "profile_end"):
        return f"{directive['kind']}-{directive['id']:020d}.json"
    return f"define-{now_ns:020d}.json"


def _check_profile(directive: dict[str, Any]) -> dict[str, Any]:
    collector = directive.get("collector")
    if not isinstance(collector, str) or not collector.isalnum() or len(collector) > 32:
        raise ValueError("a collector must be a word")
    seconds = _whole(directive, "seconds", PROFILE_STEP_S, MAX_PROFILE_S)
    if seconds % PROFILE_STEP_S:
        raise ValueError(f"seconds must be a multiple of {PROFILE_STEP_S}")
    before_s = directive.get("begin_before_s")
    if isinstance(before_s, bool) or not isinstance(before_s, int | float):
        raise ValueError("begin_before_s must be a number")
    if not math.isfinite(before_s) or not 0 < before_s < _MAX_UNIX_S:
        raise ValueError("begin_before_s must be Unix seconds")
    return {
        "kind": "profile",
        "id": _whole(directive, "id", 1, _MAX_ID),
        "collector": collector,
        "rate_hz": _whole(directive, "rate_hz", 1, MAX_RATE_HZ),
        "seconds": seconds,
        "begin_before_s": float(before_s),
    }


def _whole(directive: dict[str, Any], name: str, least: int, most: int) -> int:
    value = directive.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name} must be a whole number of {least} to {most}")
    return value


def _bytes(text: Any) -> bytes:
    if not isinstance(text, str) or text != text.lower() or not text.isalnum():
        raise ValueError("not lower-case hexadecimal")
    return bytes.fromhex(text)
