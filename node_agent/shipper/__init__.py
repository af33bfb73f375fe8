"""Delivers the spool to the centre: the process with the network and without capabilities.

`run_shipper` is the whole process; `Shipper` is one delivery after the other, for tests and for
programs that have a loop of their own.
"""

from node_agent.shipper.process import run_shipper
from node_agent.shipper.shipper import Shipper

__all__ = ["Shipper", "run_shipper"]
