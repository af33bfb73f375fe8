import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[3]
BEGIN = "import sys\nfrom node_agent.lean_imports import lean_imports\n"


def run(code: str) -> str:
    """Run it in a fresh process; what it prints."""
    return subprocess.check_output([sys.executable, "-c", BEGIN + code], cwd=HERE, text=True)


def test_a_deferred_module_is_run_when_it_is_used_and_not_before():
    assert (
        run(
            "with lean_imports():\n"
            "    import inspect\n"
            "assert 'ast' not in sys.modules\n"
            "print(inspect.signature(lambda one, two: 0))\n"
            "assert 'ast' in sys.modules\n"
            "import types, importlib\n"
            "assert type(inspect) is types.ModuleType\n"
            "assert importlib.import_module('inspect') is inspect\n"
        )
        == "(one, two)\n"
    )


def test_names_are_imported_from_a_deferred_module_too():
    assert (
        run(
            "with lean_imports():\n"
            "    import ipaddress\n"
            "from ipaddress import ip_address\n"
            "print(ip_address('::1').is_loopback)\n"
        )
        == "True\n"
    )


def test_what_a_deferred_module_lacks_is_said_as_usual():
    assert "has no attribute 'nothing'" in run(
        "with lean_imports():\n"
        "    import inspect\n"
        "try:\n"
        "    inspect.nothing\n"
        "except AttributeError as error:\n"
        "    print(error)\n"
    )


def test_msgspec_does_without_what_is_refused():
    assert (
        run(
            "with lean_imports():\n"
            "    import msgspec\n"
            "class Two(msgspec.Struct):\n"
            "    one: int\n"
            "    two: list[str] = []\n"
            'print(msgspec.json.decode(b\'{"one": 1, "two": ["x"]}\', type=Two))\n'
            "assert 'typing_extensions' not in sys.modules\n"
        )
        == "Two(one=1, two=['x'])\n"
    )


@pytest.mark.parametrize("name", ["inspect", "ast", "typing_extensions"])
def test_nothing_is_changed_afterwards(name):
    run(
        "before = list(sys.meta_path)\n"
        "with lean_imports():\n"
        "    pass\n"
        "assert sys.meta_path == before\n"
        f"import importlib, types\n"
        f"assert type(importlib.import_module({name!r})) is types.ModuleType\n"
    )
