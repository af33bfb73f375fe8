"""Frames of CPython programs: what user space has to know so that bpf/python.h can read them."""
