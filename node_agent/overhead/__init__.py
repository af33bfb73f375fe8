"""What the agent itself costs, by the definitions of docs/overhead.md.

Names are imported on first use: the shipper reports its own usage without loading the kernel side.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from node_agent.overhead.calibration import Calibration, calibrate_interrupt_ns
    from node_agent.overhead.errors import OverheadError
    from node_agent.overhead.meter import Meter, get_overhead
    from node_agent.overhead.usage import ShipperUsage, own_usage

__all__ = [
    "Calibration",
    "Meter",
    "OverheadError",
    "ShipperUsage",
    "calibrate_interrupt_ns",
    "get_overhead",
    "own_usage",
]

_MODULES = {
    "Calibration": "calibration",
    "Meter": "meter",
    "OverheadError": "errors",
    "ShipperUsage": "usage",
    "calibrate_interrupt_ns": "calibration",
    "get_overhead": "meter",
    "own_usage": "usage",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"node_agent.overhead.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'node_agent.overhead' has no attribute {name!r}")
