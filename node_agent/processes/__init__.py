"""Processes of the host: their executable mappings, the files behind them, and who they are."""
