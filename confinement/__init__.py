"""What takes a process's rights away, for the agent and for the centre: it imports neither, and
nothing but the standard library."""
