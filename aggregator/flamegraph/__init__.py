"""Flamegraphs of any hosts and services over any time."""
