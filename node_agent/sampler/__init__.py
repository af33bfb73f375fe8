"""The sampler process: samples to batches in the spool, every interval. It has no network."""

from node_agent.sampler.loop import run_sampler

__all__ = ["run_sampler"]
