"""`flamefleet symbols`: upload debug information, list what the centre has."""

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aggregator.client import add_centre_address, read_centre
from aggregator.errors import AggregatorError
from wire.terminal import printable_line

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

OpenSession = Callable[[argparse.Namespace], "AbstractContextManager[Session]"]


def add_symbols(
    commands: Any, add_centre_flags: Callable[[Any], None], session: OpenSession
) -> None:
    """Add `symbols` to the commands; `session` opens the centre's database for its options."""
    group = commands.add_parser("symbols", help="debug information: upload it, list it")
    actions = group.add_subparsers(metavar="ACTION", required=True)
    upload = actions.add_parser("upload", help="send ELF files with debug information")
    upload.add_argument("files", nargs="+", type=Path, metavar="FILE")
    add_centre_address(upload)
    upload.add_argument("--json", action="store_true", help="one line of JSON a file")
    upload.set_defaults(run=_run_upload)
    listed = actions.add_parser("list", help="each module's symbols and where they are from")
    listed.add_argument("--json", action="store_true")
    add_centre_flags(listed)
    listed.set_defaults(run=lambda options: _run_list(options, session))


def _run_upload(options: argparse.Namespace) -> int:
    from aggregator.symbols.client import upload_file

    centre = read_centre(options, "an upload")
    failed = 0
    for path in options.files:
        try:
            answer = upload_file(path, centre)
        except AggregatorError as error:
            print(error.for_terminal(), file=sys.stderr)
            failed += 1
            continue
        if options.json:
            print(json.dumps({"file": str(path), **answer}))
        else:
            what = "functions, lines and inlined functions"
            if not answer["has_lines"]:
                what = "functions only: the file has no debug information"
            built = f"build {answer['build_id']}, {what}; {answer['frames']} frames waiting"
            print(printable_line(f"{path}: {built}"))
    return 1 if failed else 0


def _run_list(options: argparse.Namespace, session: OpenSession) -> int:
    from aggregator.symbols.inventory import list_symbols

    with session(options) as opened:
        rows = list_symbols(opened)
    if options.json:
        print(json.dumps([asdict(row) for row in rows], default=lambda value: value.isoformat()))
        return 0
    for row in rows:
        where = row.source + (f" ({row.file})" if row.file else "")
        when = f"{row.since:%Y-%m-%d %H:%M}" if row.since else "-"
        lines = "lines" if row.has_lines else "-"
        words = row.refused_reason or f"{row.unnamed_frames} of {row.frames} frames without a name"
        state = f"{row.state:9} {lines:5} {when:16} {where}"
        print(printable_line(f"{row.build_id[:40]:40} {row.module:30} {state}"))
        print(printable_line(f"{'':40} {words}"))
    return 0
