"""What the agent itself costs, by the definitions of docs/overhead.md."""

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
