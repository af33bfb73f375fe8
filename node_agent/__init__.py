"""The agent that runs on every host: sampler and shipper, with the spool between them."""
