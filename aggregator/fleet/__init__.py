"""The hosts: what each one is, runs and costs."""
