"""Profiles on demand: a node is asked for a higher rate for some minutes, and followed."""
