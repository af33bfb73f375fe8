"""Names of functions as people know them, the same in a recording and at the centre. Pure.

C++ without parameters, return type and qualifiers (`shop::Cart<long>::total`): a flamegraph is
read by where time goes, and overloads stand side by side under different callers anyway. Rust
without hashes, both manglings. Go as Go writes it. What compilers append to split or copied
functions (`.cold`, `.isra.0`) is left out, so that the parts of a function are one.

The C++ names themselves are undone by a demangler that the caller brings: LLVM's at the centre, the
C++ runtime's on hosts. Where these two differ, the result here does not.
"""

import re
from collections.abc import Callable

from wire.rust_v0 import demangle_v0

MAX_MANGLED_CHARS = 10_000  # beyond that, time and memory of a demangler are anybody's guess
DemangleCpp = Callable[[str], str | None]

_SUFFIX = re.compile(
    r"(?:\.(?:cold|hot|isra|constprop|part|lto_priv|llvm|localalias|clone|warm|split|__uniq|pcrel"
    r"|specialized|resume|destroy|cleanup)(?:\.?\d+)*)+$"
)
_RUST_ESCAPE = re.compile(r"\$(SP|BP|RF|LT|GT|LP|RP|C|u[0-9a-f]{1,6})\$")
_RUST_ESCAPES = {
    "SP": "@",
    "BP": "*",
    "RF": "&",
    "LT": "<",
    "GT": ">",
    "LP": "(",
    "RP": ")",
    "C": ",",
}
_LLVM_LAMBDA = re.compile(r"'(lambda|unnamed)(\d*)'")
_GNU_LAMBDA = re.compile(r"\{(lambda|unnamed type)(?:\([^{}]*\))?#(\d+)\}")
_ANONYMOUS = "(anonymous namespace)"
_STRING = re.compile(
    r"std::(?:__cxx11::|__1::)?basic_string<char, std::(?:__1::)?char_traits<char>, "
    r"std::(?:__1::)?allocator<char>>"
)
_THUNK = re.compile(r"^((?:non-)?virtual thunk|covariant return thunk) to ")
_OPERATOR = re.compile(
    r"operator(?:\(\)|\[\]|<=>|->\*?|<<=|<<(?=[( <]|$)|>>=?|[-+*/%^&|!=<>]=|&&|\|\||\+\+|--"
    r"|[-+*/%^&|~!=<>,])"
)
_CONVERSION = re.compile(r"\boperator (?:new|delete|co_await|\"\")?")


def readable(symbol: str, demangle_cpp: DemangleCpp) -> str:
    """`symbol` (from a symbol table or debug information) for people; itself when it is not
    mangled. `demangle_cpp` gives the whole C++ name of a mangled one, None when it cannot."""
    if len(symbol) > MAX_MANGLED_CHARS:
        return symbol
    name = _SUFFIX.sub("", symbol)
    if name.startswith("_R"):
        return demangle_v0(name) or name
    if name.startswith(("_Z", "__Z", "___Z")):
        rust = _demangle_rust_legacy(name)
        if rust is not None:
            return rust
        whole = demangle_cpp(name)
        return name if whole is None or whole == name else shorten_cpp(whole)
    if "%2e" in name and "/" in name:  # Go's linker escapes dots of a path's last part
        return name.replace("%2e", ".")
    return name or symbol


def shorten_cpp(whole: str) -> str:
    """A demangled C++ name without parameters, return type and qualifiers."""
    text = _number_lambdas(whole)
    text = _GNU_LAMBDA.sub(lambda found: f"{{{found[1].partition(' ')[0]}#{found[2]}}}", text)
    while "> >" in text:
        text = text.replace("> >", ">>")
    text = _STRING.sub("std::string", text).replace("decltype(nullptr)", "std::nullptr_t")
    thunk = _THUNK.match(text)
    text = text[thunk.end() :] if thunk else text
    text = re.sub(r" \[clone [^\]]*\]| \(\.[\w.]+\)$", "", text)
    return _strip(text) or whole


def _strip(text: str) -> str:
    """Leave out the top level's parentheses and what stands before the function's name."""
    kept: list[str] = []
    depth = 0  # of angle brackets
    at = start = 0  # start: where in `kept` the name begins
    in_conversion = False
    while at < len(text):
        char = text[at]
        if char == "o" and (at == 0 or not (text[at - 1].isalnum() or text[at - 1] == "_")):
            operator = _OPERATOR.match(text, at)
            conversion = None if operator else _CONVERSION.match(text, at)
            found = operator or conversion
            if found is not None:
                in_conversion = in_conversion or (conversion is not None and depth == 0)
                kept.append(found.group())
                at = found.end()
                if operator and text.startswith(" <", at):
                    at += 1
                continue
        if char == "(" and depth == 0:
            if text.startswith(_ANONYMOUS, at):
                kept.append(_ANONYMOUS)
                at += len(_ANONYMOUS)
                continue
            end = _closing(text, at)
            if text.endswith(("decltype", "decltype "), 0, at):  # a return type
                at = end + 1
                continue
            # Qualifiers and the requirements of templates follow the parameters; only a nested
            # name or a template's arguments of a local entity go on with the function's own name.
            at = end + 1
            rest = _after_qualifiers(text, at)
            if not text.startswith("::", rest):
                if rest < len(text) and text[rest] not in " ":
                    continue
                break
            at = rest
            continue
        if char == "<":
            depth += 1
        elif char == ">" and depth and text[at - 1] != "-":
            depth -= 1
        elif char == " " and depth == 0 and not in_conversion:
            start = len(kept) + 1  # a return type, or its qualifier, ends here
        kept.append(char)
        at += 1
    return "".join(kept[start:]).strip() if start < len(kept) else "".join(kept).strip()


def _closing(text: str, at: int) -> int:
    """The place of the parenthesis that closes the one at `at`; the end when there is none."""
    depth = 0
    for place in range(at, len(text)):
        if text[place] == "(":
            depth += 1
        elif text[place] == ")":
            depth -= 1
            if depth == 0:
                return place
    return len(text)


def _after_qualifiers(text: str, at: int) -> int:
    for word in (" const", " volatile", " &&", " &", " noexcept"):
        if text.startswith(word, at):
            at += len(word)
    return at


def _number_lambdas(text: str) -> str:
    """LLVM's `'lambda0'(int)` as `{lambda#2}`: it counts '', 0, 1 where the C++ runtime counts 1,
    2, 3, and writes the parameters behind it."""
    parts = []
    at = 0
    while found := _LLVM_LAMBDA.search(text, at):
        number = int(found[2]) + 2 if found[2] else 1
        parts += [text[at : found.start()], f"{{{found[1]}#{number}}}"]
        at = found.end()
        if found[1] == "lambda" and text.startswith("(", at):
            at = _closing(text, at) + 1
    return "".join((*parts, text[at:]))


def _demangle_rust_legacy(name: str) -> str | None:
    if not name.endswith("E") or "17h" not in name[-21:]:
        return None
    at = name.find("N") + 1
    parts = []
    while at < len(name) and name[at].isdecimal() and name[at].isascii():
        end = at
        while end < len(name) and name[end].isdecimal() and end - at < 6:
            end += 1
        size = int(name[at:end])
        parts.append(name[end : end + size])
        at = end + size
    if name[at:] != "E" or not re.fullmatch("h[0-9a-f]{16}", parts.pop() if parts else ""):
        return None
    return "::".join(map(_unescape_rust, parts)) or None


def _unescape_rust(part: str) -> str:
    if part.startswith("_$"):  # an escape at the start gets an underscore before it
        part = part[1:]
    return _RUST_ESCAPE.sub(_unescape, part).replace("..", "::")


def _unescape(found: "re.Match[str]") -> str:
    code = found[1]
    if code in _RUST_ESCAPES:
        return _RUST_ESCAPES[code]
    number = int(code[1:], 16)
    valid = number <= 0x10FFFF and not 0xD800 <= number < 0xE000
    return chr(number) if valid else "\N{REPLACEMENT CHARACTER}"
