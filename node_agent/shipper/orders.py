"""The centre's orders, from an answer to the sampler."""

import time
from typing import Any

from node_agent.spool import Spool, directives
from wire.schema import Answer, Directive, ProfileDirective, SymbolDirective

_MAX_DIRECTIVES_PER_ANSWER = 64


def pass_on(answer: Answer, spool: Spool) -> None:
    """Hand the centre's orders to the sampler; only build ids and profiles get through."""
    for directive in answer.directives[:_MAX_DIRECTIVES_PER_ANSWER]:
        try:
            order = _order(directive)
        except ValueError:
            spool.dropped["directive_malformed"] += 1
            continue
        spool.put_directive(order)


def _order(directive: Directive) -> dict[str, Any]:
    """The spool's form of a directive. Raises ValueError when it cannot be one."""
    if isinstance(directive, SymbolDirective):
        return directives.symbols(directive.module_kind, directive.build_id)
    if isinstance(directive, ProfileDirective):
        return directives.profile(directive, time.time())
    return directives.profile_end(directive.id)
