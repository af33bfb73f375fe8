"""Jobs of symbols (see `aggregator.celery_app`)."""

import logging

from sqlalchemy import Engine

from aggregator.config import CentreConfig
from aggregator.db import session_scope
from aggregator.symbols.symbolize import pending_modules, symbolize_module

_log = logging.getLogger(__name__)


def symbolize_pending(engine: Engine, config: CentreConfig) -> int:
    """Read new extracts and name the frames that wait for it; how many frames were looked up."""
    with session_scope(engine) as session:
        waiting = pending_modules(session)
    frames = 0
    for module_id in waiting:
        outcome = symbolize_module(engine, module_id)
        while outcome is not None:
            frames += outcome.named + outcome.unnamed
            if outcome.refused:
                _log.warning("symbols of module %d refused: %s", module_id, outcome.refused)
            outcome = symbolize_module(engine, module_id) if outcome.more else None
    return frames
