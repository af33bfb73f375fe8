"""The agent that runs on every host: sampler and shipper, with the spool between them.

Names are imported on first use, so that a process loads only what it needs.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from node_agent.config import create_recommended_config
    from node_agent.presets import recommended_sample_rate

__all__ = ["create_recommended_config", "recommended_sample_rate"]

VERSION = "0.1.0"
_MODULES = {"create_recommended_config": "config", "recommended_sample_rate": "presets"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        from importlib import import_module

        return getattr(import_module(f"node_agent.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'node_agent' has no attribute {name!r}")
