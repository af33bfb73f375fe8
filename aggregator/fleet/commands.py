"""`flamefleet node`: the nodes of the fleet, and removing one."""

import argparse
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from wire.terminal import printable_line

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from aggregator.config import CentreConfig

OpenSession = Callable[[argparse.Namespace], "AbstractContextManager[Session]"]
BY = "the command line"


def add_node(
    commands: Any,
    add_centre_flags: Callable[[Any], None],
    session: OpenSession,
    load: Callable[[argparse.Namespace], "CentreConfig"],
) -> None:
    """Add `node` to the commands; `session` opens the centre's database for its options."""
    group = commands.add_parser("node", help="the nodes of the fleet: list them, remove one")
    actions = group.add_subparsers(metavar="ACTION", required=True)
    listed = actions.add_parser("list", help="each node, its state and when it was last seen")
    listed.add_argument("--removed", action="store_true", help="those that are gone instead")
    listed.add_argument("--json", action="store_true")
    add_centre_flags(listed)
    listed.set_defaults(run=lambda options: _run_list(options, session))
    removed = actions.add_parser(
        "remove",
        help="take nodes out of the fleet: their tokens are revoked, their alerts end",
        description="What a node has sent stays readable until its retention is over. "
        "`flamefleet token create NODE` brings it back.",
    )
    removed.add_argument("nodes", nargs="+", metavar="NODE")
    removed.add_argument("--json", action="store_true", help="one line of JSON a node")
    add_centre_flags(removed)
    removed.set_defaults(run=lambda options: _run_remove(options, session, load))


def _run_list(options: argparse.Namespace, session: OpenSession) -> int:
    from aggregator.fleet.roster import list_roster

    with session(options) as opened:
        nodes = list_roster(opened, removed=options.removed)
    if options.json:
        print(json.dumps([node._asdict() for node in nodes], default=lambda at: at.isoformat()))
        return 0
    for node in nodes:
        seen = f"{node.last_seen:%Y-%m-%d %H:%M}" if node.last_seen else "never seen"
        gone = (
            f"  removed {node.removed_at:%Y-%m-%d} by {node.removed_by}" if node.removed_at else ""
        )
        print(
            printable_line(f"{node.name:40} {node.state:9} {seen:16} {node.tokens} token(s){gone}")
        )
    return 0


def _run_remove(
    options: argparse.Namespace,
    session: OpenSession,
    load: Callable[[argparse.Namespace], "CentreConfig"],
) -> int:
    from aggregator.fleet.removal import remove_node

    urls = [webhook.url for webhook in load(options).webhooks]
    with session(options) as opened:  # all of them, or none
        done = [remove_node(opened, name, BY, urls) for name in options.nodes]
    for node in done:
        if options.json:
            told = {"tokens_revoked": node.tokens_revoked, "alerts_resolved": node.alerts_resolved}
            print(json.dumps({"node": node.name, **told}))
        else:
            counts = (
                f"{node.tokens_revoked} token(s) revoked, {node.alerts_resolved} alert(s) ended"
            )
            print(printable_line(f"{node.name} removed: {counts}; its history stays readable"))
    return 0
