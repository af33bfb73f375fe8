"""Symbols at the centre: ask one node for each module's symbols, read them, name frames."""
