"""What profiling costs, beside rivals, in one run: `make bench`."""
