"""Names for people, whichever demangler of C++ is at hand."""

import subprocess
from pathlib import Path

import pydemumble
import pytest

from node_agent.symbols.demangle import demangle_cpp
from wire.function_names import readable, shorten_cpp


def llvm(symbol: str) -> str | None:
    text: str = pydemumble.demangle(symbol)
    return text or None


@pytest.mark.parametrize("demangler", [llvm, demangle_cpp], ids=["llvm", "libstdc++"])
@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("memcpy", "memcpy"),
        ("_ZN4shop4CartIlE5totalEl", "shop::Cart<long>::total"),
        ("_ZN12_GLOBAL__N_13fooEv", "(anonymous namespace)::foo"),
        ("_ZZ4mainENKUliiE_clEii", "main::{lambda#1}::operator()"),
        ("_ZZN3foo3barEiENK3Baz3quxEv", "foo::bar::Baz::qux"),
        ("_ZN3FoocvbEv", "Foo::operator bool"),
        ("_ZN3FoossERKS_", "Foo::operator<=>"),
        ("_ZlsRSoRK3Foo", "operator<<"),
        ("_Znwm", "operator new"),
        ("_ZThn8_N3Foo3barEv", "Foo::bar"),
        ("_Z3fooIiEDTcvT_Li0EES0_", "foo<int>"),
        ("_ZNSt8functionIFviEED2Ev", "std::function<void (int)>::~function"),
        (
            "_ZStlsIwSt11char_traitsIwEERSt13basic_ostreamIT_T0_ES6_St5_Setw",
            "std::operator<<<wchar_t, std::char_traits<wchar_t>>",
        ),
        (
            "_ZStltINSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEES5_EbRKSt4pairIT_T0_ESB_",
            "std::operator<<std::string, std::string>",
        ),
        (
            "_ZSt4sortIN9__gnu_cxx17__normal_iteratorIPiSt6vectorIiSaIiEEEEZ4mainEUliiE_EvT_S8_T0_",
            "std::sort<__gnu_cxx::__normal_iterator<int*, std::vector<int, std::allocator<int>>>, "
            "main::{lambda#1}>",
        ),
        ("_Z3foov.cold", "foo"),
        ("foo.isra.0", "foo"),
        ("foo.constprop.0.cold", "foo"),
        ("parse.llvm.1234567890", "parse"),
        ("_ZN4core3fmt9Formatter3pad17h1234567890abcdefE", "core::fmt::Formatter::pad"),
        (
            "_ZN71_$LT$Test$u20$$u2b$$u20$$u27$static$u20$as$u20$foo..Bar$LT$Test$GT$$GT$3bar"
            "17h930b740aa94f1d3aE",
            "<Test + 'static as foo::Bar<Test>>::bar",
        ),
        ("_RNvNtCs1234_4till5inner4burn", "till::inner::burn"),
        ("main.main", "main.main"),
        ("main.(*T).Mid", "main.(*T).Mid"),
        ("gopkg.in/yaml%2ev3.(*parser).parse", "gopkg.in/yaml.v3.(*parser).parse"),
        ("_Z", "_Z"),
        ("_ZN4broken", "_ZN4broken"),
        ("_Register", "_Register"),
        ("_Z" + "9" * 20_000, "_Z" + "9" * 20_000),
    ],
)
def test_names_are_readable(symbol: str, name: str, demangler: object) -> None:
    assert callable(demangler)
    assert readable(symbol, demangler) == name


def test_both_demanglers_give_the_same_names_for_a_whole_library() -> None:
    libraries = sorted(Path("/usr/lib").glob("*-linux-gnu/libstdc++.so.6"))
    listed = subprocess.run(
        ["nm", "-D", "--defined-only", libraries[0]], check=True, capture_output=True, text=True
    ).stdout
    symbols = {line.split()[-1].split("@")[0] for line in listed.splitlines() if " T " in line}
    mangled = [s for s in symbols if s.startswith("_Z") and not s.startswith("_ZGTt")]
    assert len(mangled) > 1_000
    different = [s for s in mangled if readable(s, llvm) != readable(s, demangle_cpp)]
    # Conversion operators to templates, which only one of the two knows.
    assert len(different) <= len(mangled) / 200, different[:10]
    parameters = [s for s in mangled if readable(s, llvm).endswith(")") and "cl" not in s]
    assert parameters == []


@pytest.mark.parametrize("text", ["", "(", "(((", "<<<<", "a<b", "operator", "f(", "x()::", ")("])
def test_nonsense_keeps_something_to_show(text: str) -> None:
    assert isinstance(shorten_cpp(text), str)
    assert bool(shorten_cpp(text)) == bool(text)
