"""`flamefleet symbols`: upload debug information, list what the centre has."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aggregator.config import DEFAULT_PORT
from aggregator.errors import AggregatorError, ConfigError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

TOKEN_VARIABLE = "FLAMEFLEET_OPERATOR_TOKEN"
DEFAULT_URL = f"http://127.0.0.1:{DEFAULT_PORT}"
OpenSession = Callable[[argparse.Namespace], "AbstractContextManager[Session]"]


def add_symbols(
    commands: Any, add_centre_flags: Callable[[Any], None], session: OpenSession
) -> None:
    """Add `symbols` to the commands; `session` opens the centre's database for its options."""
    group = commands.add_parser("symbols", help="debug information: upload it, list it")
    actions = group.add_subparsers(metavar="ACTION", required=True)
    upload = actions.add_parser("upload", help="send ELF files with debug information")
    upload.add_argument("files", nargs="+", type=Path, metavar="FILE")
    upload.add_argument("--url", default=DEFAULT_URL, help="the centre; default: %(default)s")
    token = upload.add_mutually_exclusive_group()
    token.add_argument("--token", metavar="TOKEN", help=f"an operator's; or {TOKEN_VARIABLE}")
    token.add_argument("--token-file", type=Path, metavar="FILE")
    upload.add_argument("--ca-file", type=Path, metavar="FILE", help="trusted for https://")
    upload.add_argument("--json", action="store_true", help="one line of JSON a file")
    upload.set_defaults(run=_run_upload)
    listed = actions.add_parser("list", help="each module's symbols and where they are from")
    listed.add_argument("--json", action="store_true")
    add_centre_flags(listed)
    listed.set_defaults(run=lambda options: _run_list(options, session))


def _run_upload(options: argparse.Namespace) -> int:
    from aggregator.symbols.client import upload_file

    token = _read_token(options)
    failed = 0
    for path in options.files:
        try:
            answer = upload_file(path, options.url, token, options.ca_file)
        except AggregatorError as error:
            print(f"flamefleet: {error.message}\n  what to do: {error.remedy}", file=sys.stderr)
            failed += 1
            continue
        if options.json:
            print(json.dumps({"file": str(path), **answer}))
        else:
            what = "functions, lines and inlined functions"
            if not answer["has_lines"]:
                what = "functions only: the file has no debug information"
            print(f"{path}: build {answer['build_id']}, {what}; {answer['frames']} frames waiting")
    return 1 if failed else 0


def _read_token(options: argparse.Namespace) -> str:
    token = options.token or os.environ.get(TOKEN_VARIABLE, "")
    if options.token_file is not None:
        try:
            token = options.token_file.read_text()
        except OSError as error:
            raise ConfigError(f"cannot read {options.token_file}: {error.strerror}") from error
    if not token.strip() or not token.strip().isascii():
        raise ConfigError(
            "an upload needs an operator's token",
            remedy=f"give --token-file or {TOKEN_VARIABLE}; "
            "`flamefleet token create --operator NAME` makes one",
        )
    return token.strip()


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
        print(f"{row.build_id[:40]:40} {row.module:30} {row.state:9} {lines:5} {when:16} {where}")
        print(f"{'':40} {words}")
    return 0
