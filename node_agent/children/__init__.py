"""Short-lived processes that parse foreign files for the sampler: confined, one at a time, and
within one ration of CPU time."""
