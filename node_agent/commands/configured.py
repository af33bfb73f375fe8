"""The configuration that a command was started with: file, environment, flags."""

import os
from pathlib import Path
from types import SimpleNamespace

from node_agent.config import DEFAULT_CONFIG_FILE, AgentConfig, load_config
from node_agent.settings import SETTINGS


def config_of(arguments: SimpleNamespace) -> AgentConfig:
    """Load the configuration. Without --config the default file is read where it exists.

    Raises ConfigError.
    """
    path: Path | None = arguments.config
    if path is None and DEFAULT_CONFIG_FILE.exists():
        path = DEFAULT_CONFIG_FILE
    flags = {name: value for name, value in vars(arguments).items() if name in SETTINGS}
    return load_config(path, os.environ, flags)
