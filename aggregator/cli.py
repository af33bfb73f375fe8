"""`flamefleet`: the centre's commands. Each imports what it needs only when it is called."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aggregator.config import DEFAULT_PORT
from aggregator.errors import AggregatorError, ConfigError
from aggregator.fleet.commands import add_node
from aggregator.local.errors import LocalError
from aggregator.local.options import DEFAULT_PRESET, PRESETS
from aggregator.log import make_safe
from aggregator.on_demand.commands import add_profile
from aggregator.symbols.commands import add_symbols
from wire.called_as import as_called
from wire.terminal import printable_line

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from aggregator.config import CentreConfig

OWN_PACKAGES = ("aggregator", "wire")
EXIT_FAILED = 1
EXIT_USAGE = 2  # argparse's own


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; errors go to standard error with a remedy."""
    options = build_parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except LocalError as error:
        print(as_called(f"flamefleet: {error}"), file=sys.stderr)
        return error.exit_code
    except AggregatorError as error:
        print(error.for_terminal(), file=sys.stderr)
        return EXIT_USAGE if isinstance(error, ConfigError) else EXIT_FAILED
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in OWN_PACKAGES:
            raise  # a broken installation of ours: no extra would mend it
        print(
            f"flamefleet: the package {error.name!r} is missing\n"
            "  what to do: pip install 'flamefleet[centre]' (or [demo] for flamefleet up)",
            file=sys.stderr,
        )
        return EXIT_FAILED


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command."""
    parser = argparse.ArgumentParser(
        prog="flamefleet", description="The centre of Flamefleet: profiles of a whole fleet."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_up(commands)
    _add_serve(commands)
    _add_worker(commands)
    _add_db(commands)
    _add_token(commands)
    add_node(commands, _add_centre_flags, _session, _load)
    add_symbols(commands, _add_centre_flags, _session)
    add_profile(commands)
    return parser


def _add_up(commands: Any) -> None:
    parser = commands.add_parser(
        "up", help="everything on this machine: servers, aggregator, worker and this host's agent"
    )
    parser.add_argument("--port", type=_port, default=DEFAULT_PORT, help="default: %(default)s")
    parser.add_argument(
        "--data-dir",
        type=Path,
        help="default: /var/lib/flamefleet/demo for root, else ~/.local/share/flamefleet",
    )
    parser.add_argument(
        "--preset", choices=PRESETS, default=DEFAULT_PRESET, help="default: %(default)s"
    )
    parser.add_argument(
        "--for", dest="run_for", metavar="TIME", help="stop that long after it is ready (60s, 5m)"
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON when it is ready")
    parser.add_argument("--webhook", metavar="URL", help="send alerts there")
    parser.add_argument("--webhook-secret", metavar="SECRET", help="sign them with it")
    parser.set_defaults(run=_run_up)


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; allowed are 1 to 65535")
    return int(text)


def _run_up(options: argparse.Namespace) -> int:
    from aggregator.local.data_folder import default_data_folder
    from aggregator.local.options import UpOptions, parse_duration_s
    from aggregator.local.up import run_up

    return run_up(
        UpOptions(
            data_dir=options.data_dir or default_data_folder(),
            port=options.port,
            preset=options.preset,
            run_s=None if options.run_for is None else parse_duration_s(options.run_for),
            json_lines=options.json,
            webhook=options.webhook,
            webhook_secret=options.webhook_secret,
        )
    )


def _add_serve(commands: Any) -> None:
    parser = commands.add_parser("serve", help="the aggregator: API and page")
    _add_centre_flags(parser)
    parser.add_argument("--host")
    parser.add_argument("--port", type=_port)
    parser.set_defaults(run=_run_serve)


def _run_serve(options: argparse.Namespace) -> int:
    config = _load(options, host=options.host, port=options.port)
    logging.basicConfig(level=logging.INFO)
    make_safe(logging.getLogger())
    logging.getLogger("alembic").setLevel(logging.WARNING)  # each /readyz would be two lines
    from aggregator.app import serve

    serve(config)
    return 0


def _add_worker(commands: Any) -> None:
    parser = commands.add_parser("worker", help="the Celery worker: compaction, symbols, alerts")
    _add_centre_flags(parser)
    parser.add_argument("--beat", action="store_true", help="with the scheduler; one a centre")
    parser.add_argument(
        "--schedule", type=Path, metavar="FILE", help="where the scheduler keeps its times"
    )
    parser.add_argument(
        "--queue",
        choices=("all", "jobs", "deliveries"),
        default="all",
        help="deliveries: webhooks only; jobs: all others; all: both, each in a process of its own",
    )
    parser.add_argument("--pool", choices=("prefork", "solo"), default="prefork")
    parser.add_argument("--concurrency", type=int, metavar="N", help="processes of the pool")
    parser.add_argument(
        "--ready-file", type=Path, metavar="FILE", help="gets the process id once it takes work"
    )
    parser.add_argument("--log-level", choices=("DEBUG", "INFO", "WARNING"), default="INFO")
    parser.set_defaults(run=_run_worker)


def _run_worker(options: argparse.Namespace) -> int:
    config = _load(options)
    from celery.signals import worker_ready

    from aggregator.celery_app import create_celery
    from aggregator.jobs.deliveries import run_deliveries

    def write_ready_file(**_: object) -> None:
        options.ready_file.write_text(f"{os.getpid()}\n")

    if options.ready_file is not None:
        worker_ready.connect(write_ready_file, weak=False)
    if options.queue == "deliveries":
        run_deliveries(config, options.log_level)
        return 0
    arguments = ["worker", "--loglevel", options.log_level, "--pool", options.pool]
    if options.concurrency is not None:
        arguments += ["--concurrency", str(options.concurrency)]
    if options.beat:
        arguments.append("--beat")
    if options.schedule is not None:
        arguments += ["--schedule", str(options.schedule)]
    create_celery(config, beside=options.queue == "all").worker_main(arguments)
    return 0


def _add_db(commands: Any) -> None:
    group = commands.add_parser("db", help="the database schema")
    actions = group.add_subparsers(metavar="ACTION", required=True)
    for name, run, words in (
        ("upgrade", _run_db_upgrade, "bring the schema to this version"),
        ("current", _run_db_current, "show its version; status 1 when it is not this one's"),
    ):
        parser = actions.add_parser(name, help=words)
        _add_centre_flags(parser)
        parser.set_defaults(run=run)


def _run_db_upgrade(options: argparse.Namespace) -> int:
    from aggregator.db import head_revision, run_migrations

    run_migrations(_load(options).database_url)
    print(f"the schema is at {head_revision()}")
    return 0


def _run_db_current(options: argparse.Namespace) -> int:
    from aggregator.db import (
        create_sync_database,
        current_revision,
        database_errors,
        head_revision,
    )

    engine = create_sync_database(_load_found(options).database_url)
    with database_errors(), engine.connect() as connection:
        current = current_revision(connection)
    engine.dispose()
    head = head_revision()
    print(f"{current or 'empty'} (this version's: {head})")
    return 0 if current == head else EXIT_FAILED


def _add_token(commands: Any) -> None:
    group = commands.add_parser("token", help="tokens of nodes and operators")
    actions = group.add_subparsers(metavar="ACTION", required=True)
    for name, run, words in (
        ("create", _run_token_create, "make a token; it is shown this once"),
        ("revoke", _run_token_revoke, "end all tokens of a node or an operator"),
    ):
        parser = actions.add_parser(name, help=words)
        owner = parser.add_mutually_exclusive_group(required=True)
        owner.add_argument("node", nargs="?", metavar="NODE", help="the node's name")
        owner.add_argument(
            "--operator",
            metavar="NAME",
            help="who uploads symbols or asks for profiles: a person, a build system",
        )
        parser.add_argument("--json", action="store_true")
        _add_centre_flags(parser)
        parser.set_defaults(run=run)


def _run_token_create(options: argparse.Namespace) -> int:
    from aggregator.access.operators import create_operator_token
    from aggregator.access.service import create_token

    with _session(options) as session:
        if options.operator is not None:
            token = create_operator_token(session, options.operator)
        else:
            token = create_token(session, options.node)
    print(json.dumps({**_owner(options), "token": token}) if options.json else token)
    return 0


def _run_token_revoke(options: argparse.Namespace) -> int:
    from aggregator.access.operators import revoke_operator_tokens
    from aggregator.access.service import revoke_tokens

    with _session(options) as session:
        if options.operator is not None:
            revoked = revoke_operator_tokens(session, options.operator)
        else:
            revoked = revoke_tokens(session, options.node)
    owner = _owner(options)
    if options.json:
        print(json.dumps({**owner, "revoked": revoked}))
    else:
        print(f"{revoked} token(s) of {printable_line(next(iter(owner.values())))} revoked")
    return 0


def _owner(options: argparse.Namespace) -> dict[str, str]:
    if options.operator is not None:
        return {"operator": options.operator}
    return {"node": options.node}


def _add_centre_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file")
    parser.add_argument("--database-url", metavar="URL", help="or FLAMEFLEET_DATABASE_URL")
    parser.add_argument("--broker-url", metavar="URL", help="or FLAMEFLEET_BROKER_URL")


def _load(options: argparse.Namespace, **overrides: object) -> "CentreConfig":
    from aggregator.config import load_config

    overrides |= {"database_url": options.database_url, "broker_url": options.broker_url}
    return load_config(options.config, os.environ, overrides)


def _load_found(options: argparse.Namespace) -> "CentreConfig":
    """Where nothing says which centre is meant, it is the `flamefleet up` that runs here."""
    from aggregator.config import ENVIRONMENT_PREFIX
    from aggregator.local.running import running_config

    settings = ("CONFIG", "DATABASE_URL")
    given = options.config or options.database_url
    if not given and not any(os.environ.get(ENVIRONMENT_PREFIX + name) for name in settings):
        options.config = running_config()
        if options.config is not None:
            print(f"the centre is the running `flamefleet up`: {options.config}", file=sys.stderr)
    return _load(options)


@contextmanager
def _session(options: argparse.Namespace) -> Iterator["Session"]:
    from aggregator.db import create_sync_database, session_scope

    engine = create_sync_database(_load_found(options).database_url)
    try:
        with session_scope(engine) as session:
            yield session
    finally:
        engine.dispose()


if __name__ == "__main__":
    sys.exit(main())
