"""The folder between sampler and shipper: batches one way, directives the other.

```
batches/<run hex>-<sequence:012d>.batch   an encoded wire Batch
batches/<run hex>-<sequence:012d>.defs    encoded Definitions of stacks first seen in that batch,
                                          written before the batch; may be absent
extracts/<build id hex>-<kind>.extract    an encoded SymbolExtract
directives/<name>.json                    orders of the centre, written by the shipper
refused/                                  batches that the centre refused for good, bounded
status/sampler.json, status/shipper.json  what each process says about itself
```
"""

from node_agent.spool.bounds import Usage
from node_agent.spool.entries import BatchEntry, ExtractEntry
from node_agent.spool.store import PutResult, Spool

__all__ = ["BatchEntry", "ExtractEntry", "PutResult", "Spool", "Usage"]
