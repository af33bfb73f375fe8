"""One command of `flamefleet-agent` a module; each is imported only when it is run."""
