"""`flamefleet-agent check`: can this host be profiled, and how well?"""

import json
import sys
from types import SimpleNamespace

from node_agent.capabilities import drop_unneeded
from node_agent.commands.configured import config_of
from node_agent.config import AgentConfig
from node_agent.errors import EXIT_FAILED, EXIT_IMPOSSIBLE, ConfigError
from node_agent.preflight import Check, Facts, is_possible, read_facts, render, run_checks
from wire.terminal import printable


def execute(arguments: SimpleNamespace) -> int:
    """Print the checks; 0, or 3 when profiling is impossible. With --production the checklist too:
    then 1 when something of it is missing."""
    drop_unneeded()  # what is checked is what `run` would have
    config, fault = _configuration(arguments) if arguments.production else (None, "")
    facts = read_facts(config.mode if config else "auto")
    checks = run_checks(facts)
    production = _production(checks, facts, config, fault) if arguments.production else []
    if arguments.json:
        entries = [check._asdict() for check in checks]
        entries += [
            {**check._asdict(), "name": f"production: {check.name}"} for check in production
        ]
        print(json.dumps(entries, indent=2))
    else:
        _print_tables(checks, production)
    if not is_possible(checks):
        return EXIT_IMPOSSIBLE
    from node_agent.preflight.production import missing

    return EXIT_FAILED if missing(production) else 0


def _configuration(arguments: SimpleNamespace) -> tuple[AgentConfig | None, str]:
    try:
        return config_of(arguments), ""
    except ConfigError as error:
        return None, "; ".join(str(error).split("\n"))


def _production(
    checks: list[Check], facts: Facts, config: AgentConfig | None, fault: str
) -> list[Check]:
    from node_agent.preflight.production import production_checks
    from node_agent.preflight.production_facts import read_production_facts

    return production_checks(checks, facts, read_production_facts(config, fault))


def _print_tables(checks: list[Check], production: list[Check]) -> None:
    colour = sys.stdout.isatty()
    checks, production = _for_terminal(checks), _for_terminal(production)
    print(render(checks, colour=colour))
    if production:
        from node_agent.preflight.table import render_production

        print()
        print(render_production(production, colour=colour))


def _for_terminal(checks: list[Check]) -> list[Check]:
    """What a check found may be another program's words."""
    return [
        check._replace(why=printable(check.why), remedy=printable(check.remedy)) for check in checks
    ]
