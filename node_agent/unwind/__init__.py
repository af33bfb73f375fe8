"""Stacks without frame pointers: rows of unwind information, made here and walked in the kernel."""
