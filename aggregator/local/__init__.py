"""The whole centre and this host's agent in one command: `flamefleet up`."""
