"""A package, so that pytest ends the demo and its busy program with the last test in here."""
