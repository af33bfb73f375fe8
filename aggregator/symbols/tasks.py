"""Jobs of symbols (see `aggregator.celery_app`)."""

import logging
import time

from sqlalchemy import Engine

from aggregator.config import CentreConfig
from aggregator.db import session_scope
from aggregator.errors import DatabaseError, DatabaseUnavailableError
from aggregator.symbols.symbolize import Outcome, pending_modules, symbolize_module

# A new fleet has hundreds of modules at once; other jobs of the same worker wait no longer.
BUDGET_S = 20.0

_log = logging.getLogger(__name__)


def symbolize_pending(engine: Engine, config: CentreConfig) -> int:
    """Read new extracts and name the frames that wait for it; how many frames were looked up.

    Stops after BUDGET_S, and goes on when it is asked for again.
    """
    ends = time.monotonic() + BUDGET_S
    with session_scope(engine) as session:
        waiting = pending_modules(session)
    frames = 0
    while waiting and time.monotonic() < ends:
        outcome = _symbolize(engine, waiting[0])
        frames += outcome.named + outcome.unnamed
        if not outcome.more:
            del waiting[0]
    return frames


def _symbolize(engine: Engine, module_id: int) -> Outcome:
    """One pass over a module. What fails for it must not keep the others waiting."""
    try:
        outcome = symbolize_module(engine, module_id) or Outcome()
    except DatabaseUnavailableError:
        raise
    except DatabaseError as error:
        _log.error("frames of module %d stay without names: %s", module_id, error)
        return Outcome()
    if outcome.refused:
        _log.warning("symbols of module %d refused: %s", module_id, outcome.refused)
    return outcome
