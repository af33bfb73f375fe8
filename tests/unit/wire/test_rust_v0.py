"""Rust's second mangling, beside LLVM's demangler."""

import shutil
import subprocess
from pathlib import Path

import pydemumble
import pytest

from wire.rust_v0 import demangle_v0


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("_RNvNtCs1234_4till5inner4burn", "till::inner::burn"),
        (
            "_RNvXs_NtCs1234_4till5innerNtB4_3FooNtNtCs5_4core3fmt7Display3fmt",
            "<till::inner::Foo as core::fmt::Display>::fmt",
        ),
        ("_RINvNtC3std3mem8align_ofjE", "std::mem::align_of::<usize>"),
        ("_RNCNvC4till4main0B3_", "till::main::{closure#0}"),
        ("_RNvMs_C4tillINtB4_4ListlE4push", "<till::List<i32>>::push"),
        ("_RNvC6_123foo3bar", "123foo::bar"),
        ("_RINvC3foo3bazKhf_Kb1_Kc41_E", "foo::baz::<15, true, 'A'>"),
        ("_RINvC3foo3barFG_RL0_hEuE", "foo::bar::<fn(&u8)>"),
        (
            "_RNqCs4fqI2P2rA04_11utf8_identsu30____7hkackfecea1cbdathfdh9hlq6y",
            "utf8_idents::საჭმელად_გემრიელი_სადილი",
        ),
        ("_RNvC4till4burn.llvm.123", "till::burn"),
    ],
)
def test_names_are_readable(symbol: str, name: str) -> None:
    assert demangle_v0(symbol) == name


@pytest.mark.parametrize(
    "symbol",
    [
        *("_R", "_RB_", "_RNv", "_RNvC9_short", "_R" + "I" * 5_000, "_RNvC3foo99999999999", "_Rß"),
        *("_R" + "NvB_" * 40, "_RIC1aTB2_B2_EE" * 10),
        "_RINvC3foo3bar" + "T" * 500 + "E" * 500,
    ],
)
def test_what_is_not_mangled_so_is_left_alone(symbol: str) -> None:
    assert demangle_v0(symbol) is None


def test_back_references_cannot_make_a_name_of_megabytes() -> None:
    # Each tuple refers to the one before twice: 2^n types from a few hundred characters.
    body, places = "INvC1a1b", []
    for _ in range(40):
        places.append(len(body))
        last = places[-2] if len(places) > 1 else None
        body += "TllE" if last is None else f"TB{_base_62(last)}B{_base_62(last)}E"
    assert demangle_v0(f"_R{body}E") is None


def _base_62(value: int) -> str:
    digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    value -= 1
    text = digits[value % 62]
    while value >= 62:
        value //= 62
        text = digits[value % 62] + text
    return f"{text}_"


def test_a_whole_program_reads_as_with_llvm(tmp_path: Path) -> None:
    rustc = shutil.which("rustc")
    if rustc is None:
        pytest.skip("no rustc")
    (tmp_path / "till.rs").write_text(
        "use std::collections::HashMap; fn main() { let mut m: HashMap<String, Vec<u8>> ="
        ' HashMap::new(); m.insert("a".into(), vec![1]); let v: Vec<_> = m.iter().map(|(k, v)|'
        ' (k.len(), v.len())).collect(); println!("{v:?}"); }'
    )
    argv = [rustc, "-C", "symbol-mangling-version=v0", "-o", "till", "till.rs"]
    subprocess.run(argv, check=True, cwd=tmp_path)
    listed = subprocess.run(["nm", tmp_path / "till"], check=True, capture_output=True, text=True)
    symbols = [s for s in listed.stdout.split() if s.startswith("_R") and "." not in s]
    assert len(symbols) > 50
    for symbol in symbols:
        name = demangle_v0(symbol)
        assert name is not None, symbol
        # Not lifetimes, nor shims and closures, which LLVM numbers in its own way.
        if "'" not in pydemumble.demangle(symbol) and "{" not in name:
            assert name == pydemumble.demangle(symbol), symbol
