"""Symbols: what identifies a module, and its symbol tables made small enough to send.

Everything that parses a whole foreign file runs in a short-lived child process; the sampler itself
reads only headers and notes.
"""
