"""The worker's messages, and the processes that do the jobs."""
