"""Which of a process's mappings are of a CPython, by the name of the file."""

from node_agent.cpython.interpreter import FILE_NAME
from node_agent.processes.mappings import Mapping, Mappings


def file_name(mapping: Mapping) -> str:
    """The last part of a mapped file's path."""
    path = mapping.path.removesuffix(b" (deleted)")
    return path.rsplit(b"/", 1)[-1].decode("utf-8", "replace")


def find_interpreters(mappings: Mappings) -> list[Mapping]:
    """The executable mappings of files with a CPython's name: of libraries where there are any,
    since the executable then holds none; else of the executable."""
    found = [
        mapping
        for mapping in mappings.entries
        if b"python3" in mapping.path and FILE_NAME.match(file_name(mapping))
    ]
    libraries = [mapping for mapping in found if file_name(mapping).startswith("lib")]
    return libraries or found
