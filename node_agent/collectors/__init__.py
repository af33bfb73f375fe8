"""Collectors: each turns one kind of kernel event into counted stacks.

What they report carries the kernel's addresses; naming them is for `processes` and `symbols`.
"""
