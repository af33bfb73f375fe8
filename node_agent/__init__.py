"""The agent that runs on every host: sampler and shipper, with the spool between them.

Names are imported on first use, so that a process loads only what it needs.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from node_agent.presets import create_recommended_config, recommended_sample_rate

__all__ = ["create_recommended_config", "recommended_sample_rate"]

VERSION = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in __all__:
        from node_agent import presets

        return getattr(presets, name)
    raise AttributeError(f"module 'node_agent' has no attribute {name!r}")
