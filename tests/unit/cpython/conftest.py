"""Files of real interpreters."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def library_of() -> Callable[[Path], Path]:
    """The file that holds an interpreter's evaluator: its libpython, else the program itself."""

    def find(executable: Path) -> Path:
        linked = subprocess.check_output(["ldd", executable], text=True)
        library = re.search(r"libpython3\.\S+ => (/\S+)", linked)
        return Path(library[1]).resolve() if library else executable.resolve()

    return find
