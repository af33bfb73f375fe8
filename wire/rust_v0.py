"""Readable form of Rust's second symbol mangling, `_R...` (RFC 2603, "v0").

Written for flamegraphs: no crate hashes, no lifetimes, generic arguments kept. Hostile names are
bounded in depth, in steps and in length; what does not fit the grammar stays as it is. Pure.
"""

import re
from collections.abc import Callable

MAX_DEPTH = 64
MAX_CHARS = 2_000
MAX_STEPS = 4_000
_BASIC = {
    "a": "i8",
    "b": "bool",
    "c": "char",
    "d": "f64",
    "e": "str",
    "f": "f32",
    "h": "u8",
    "i": "isize",
    "j": "usize",
    "l": "i32",
    "m": "u32",
    "n": "i128",
    "o": "u128",
    "p": "_",
    "s": "i16",
    "t": "u16",
    "u": "()",
    "v": "...",
    "x": "i64",
    "y": "u64",
    "z": "!",
}
_NUMBER = re.compile("0|[1-9][0-9]*")
_BASE_62 = re.compile("[0-9a-zA-Z]*_")
_HEX = re.compile("n?[0-9a-f]*_")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


class _MalformedError(ValueError):
    pass


def demangle_v0(symbol: str) -> str | None:
    """The readable form of `symbol` (which begins with `_R`), None when it is not mangled so."""
    if not symbol.isascii():
        return None
    body = symbol[2:].partition(".")[0]  # compilers append suffixes of their own
    try:
        reader = _Reader(body)
        name = reader.path()
        # The crate that made the instance may follow.
        return name if reader.rest()[:1] in ("", "C", "B") else None
    except (_MalformedError, IndexError, ValueError):
        return None


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._left = MAX_STEPS

    def rest(self) -> str:
        """What is not read yet."""
        return self._text[self._at :]

    def path(self, turbofish: str = "::") -> str:
        """A path: a crate, an implementation, a name in another path, with its arguments, which
        follow `turbofish` (nothing in types)."""
        self._enter()
        kind = self._take()
        if kind == "C":
            self._disambiguator()
            result = self._identifier()
        elif kind in "MX":
            self._disambiguator()
            self.path()  # where the implementation stands: of no interest
            result = f"<{self.type()}>" if kind == "M" else self._as_trait()
        elif kind == "Y":
            result = self._as_trait()
        elif kind == "N":
            result = self._nested(turbofish)
        elif kind == "I":
            result = self.path(turbofish)
            result += f"{turbofish}<{self._list(self._argument)}>"
        elif kind == "B":
            result = self._back(lambda: self.path(turbofish))
        else:
            raise _MalformedError
        return self._leave(result)

    def type(self) -> str:
        """A type."""
        self._enter()
        kind = self._take()
        if kind in _BASIC:
            result = _BASIC[kind]
        elif kind in "RQPO":
            if kind in "RQ" and self._peek() == "L":
                self._take()
                self._base_62()
            word = {"R": "&", "Q": "&mut ", "P": "*const ", "O": "*mut "}[kind]
            result = word + self.type()
        elif kind == "A":
            element = self.type()
            result = f"[{element}; {self._constant()}]"
        elif kind == "S":
            result = f"[{self.type()}]"
        elif kind == "T":
            parts = self._items(self.type)
            result = f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
        elif kind == "F":
            result = self._function()
        elif kind == "D":
            result = self._dynamic()
        elif kind == "B":
            result = self._back(self.type)
        else:
            self._at -= 1
            result = self.path("")
        return self._leave(result)

    def _as_trait(self) -> str:
        own = self.type()
        return f"<{own} as {self.path('')}>"

    def _nested(self, turbofish: str) -> str:
        space = self._take()
        outer = self.path(turbofish)
        number = self._disambiguator()
        name = self._identifier()
        if space.islower():  # ordinary names of types, functions and modules
            return f"{outer}::{name}" if name else outer
        word = {"C": "closure", "S": "shim"}.get(space, space)
        return f"{outer}::{{{word}{':' + name if name else ''}#{number}}}"

    def _argument(self) -> str:
        kind = self._peek()
        if kind == "L":
            self._take()
            self._base_62()
            return ""
        if kind == "K":
            self._take()
            return self._constant()
        return self.type()

    def _constant(self) -> str:
        if self._peek() == "B":
            self._take()
            return self._back(self._constant)
        kind = self._take()
        if kind == "p":
            return "_"
        if kind not in _BASIC:
            raise _MalformedError  # structures as arguments are not stable Rust
        digits = self._match(_HEX)[:-1]
        sign = "-" if digits.startswith("n") else ""
        value = int(digits.lstrip("n") or "0", 16)
        if kind == "b":
            return str(bool(value)).lower()
        if kind == "c":
            return repr(chr(value))
        return f"{sign}{value}"

    def _function(self) -> str:
        self._binder()
        words = ""
        if self._peek() == "U":
            self._take()
            words = "unsafe "
        if self._peek() == "K":
            self._take()
            if self._peek() == "C":
                self._take()
                words += 'extern "C" '
            else:
                words += f'extern "{self._identifier()}" '
        arguments = self._list(self.type)
        result = self.type()
        return f"{words}fn({arguments})" + ("" if result == "()" else f" -> {result}")

    def _dynamic(self) -> str:
        self._binder()
        traits = self._list(self._trait, " + ")
        if self._take() != "L":
            raise _MalformedError
        self._base_62()
        return f"dyn {traits}"

    def _trait(self) -> str:
        result = self.path("")
        bindings = []
        while self._peek() == "p":
            self._take()
            name = self._identifier()
            bindings.append(f"{name} = {self.type()}")
        if not bindings:
            return result
        joined = ", ".join(bindings)
        return f"{result[:-1]}, {joined}>" if result.endswith(">") else f"{result}<{joined}>"

    def _binder(self) -> None:
        if self._peek() == "G":
            self._take()
            self._base_62()

    def _list(self, read: Callable[[], str], separator: str = ", ") -> str:
        return separator.join(self._items(read))

    def _items(self, read: Callable[[], str]) -> list[str]:
        """What `read` reads again and again up to the closing E; lifetimes are empty."""
        parts = []
        while self._peek() != "E":
            parts.append(read())
        self._take()
        return [part for part in parts if part]

    def _back(self, read: Callable[[], str]) -> str:
        here = self._at - 1
        target = self._base_62()
        if target >= here:
            raise _MalformedError
        resume, self._at = self._at, target
        result = read()
        self._at = resume
        return result

    def _identifier(self) -> str:
        coded = self._peek() == "u"
        if coded:
            self._take()
        size = int(self._match(_NUMBER)[:6])
        if self._peek() == "_":
            self._take()
        text = self._text[self._at : self._at + size]
        if len(text) != size:
            raise _MalformedError
        self._at += size
        if not coded:
            return text
        plain, _, rest = text.rpartition("_")
        code = f"{plain}-{rest}" if plain else rest
        return code.encode().decode("punycode")

    def _disambiguator(self) -> int:
        if self._peek() != "s":
            return 0
        self._take()
        return self._base_62() + 1

    def _base_62(self) -> int:
        digits = self._match(_BASE_62)[:-1]
        if len(digits) > 12:
            raise _MalformedError
        value = 0
        for digit in digits:
            value = value * 62 + _DIGITS.index(digit)
        return value + 1 if digits else 0

    def _match(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise _MalformedError
        self._at = found.end()
        return found.group()

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self) -> str:
        self._at += 1
        return self._text[self._at - 1]

    def _enter(self) -> None:
        self._depth += 1
        self._left -= 1
        if self._depth > MAX_DEPTH or self._left < 0:
            raise _MalformedError

    def _leave(self, result: str) -> str:
        self._depth -= 1
        if len(result) > MAX_CHARS:
            raise _MalformedError
        return result
