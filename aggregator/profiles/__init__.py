"""Stored profiles: their blobs, the stack dictionary, the prefix tree and what a query reads."""
