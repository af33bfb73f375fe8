"""What can be done while `flamefleet up` runs: lines to paste into another terminal."""

import shlex
from pathlib import Path

from aggregator.client import TOKEN_VARIABLE
from wire.called_as import called


def try_next(node: str, agent_config: Path) -> list[str]:
    """A line of words and a command each; the commands hold in every folder."""
    centre = shlex.quote(called("flamefleet", anywhere=True))
    agent = shlex.quote(called("flamefleet-agent", anywhere=True))
    token = f"export {TOKEN_VARIABLE}=$({centre} token create --operator me)"
    return [
        "In another terminal:",
        f"  a closer look for 20 s    {token}",
        f"                            {centre} profile {shlex.quote(node)} --seconds 20",
        f"  what the agent does       {agent} status --config {shlex.quote(str(agent_config))}",
    ]
