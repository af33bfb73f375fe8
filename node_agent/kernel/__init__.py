"""The only package that touches the kernel's BPF and perf interfaces.

Standard library and ctypes alone: it is loaded in the process that has to stay lean.
"""
