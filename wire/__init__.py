"""What travels between a node agent and the aggregator: schema, codec and content hashes.

Both sides import this package; it imports neither. Only the standard library, `msgspec` and
`zstandard` are used here, because the agent keeps this package resident.
"""
