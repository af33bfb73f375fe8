"""What the sampler forgets, and when: its caches hold what the last minutes needed.

Stacks, and what new ones are made of, go when they were not seen for one to two minutes (names of
Python code: two to four); processes
half a minute after they have ended, or when they were not sampled for five to ten minutes: those
that still run are dear to read again. docs/overhead.md lists the caches with their limits.
"""

import time

from node_agent.cpython.programs import PythonPrograms
from node_agent.normalize import Normalizer
from node_agent.processes.ended import EndedProcesses
from node_agent.processes.identity import Identities
from node_agent.sampler.definitions import DefinitionBook
from node_agent.symbols.modules import ModuleRegistry
from node_agent.unwind.unwinder import Unwinder

CLEAN_EVERY_S = 30.0
NAMES_EVERY = 2  # rotations
PROCESSES_EVERY = 5


class Forgetting:
    """The caches of one run."""

    def __init__(
        self,
        normalizer: Normalizer,
        definitions: DefinitionBook,
        identities: Identities,
        registry: ModuleRegistry,
    ) -> None:
        self.unwinder: Unwinder | None = None
        self.programs: PythonPrograms | None = None
        self._normalizer = normalizer
        self._definitions = definitions
        self._identities = identities
        self._registry = registry
        self._ended = EndedProcesses()
        self._rotations = 0
        self._clean_at = time.monotonic() + CLEAN_EVERY_S

    def rotate(self) -> None:
        """Forget the stacks that were not seen since the last call, and every PROCESSES_EVERY-th
        time the processes that were not seen since then."""
        self._rotations += 1
        self._normalizer.rotate()
        self._definitions.rotate()
        if self._rotations % NAMES_EVERY == 0:  # all that are in use are then sent again
            with self._normalizer.python.spent:
                self._normalizer.python.rotate()
        if self._rotations % PROCESSES_EVERY == 0:
            self._normalizer.rotate_processes()
            self._identities.rotate()
            self._registry.faults.rotate()
            if self.programs is not None:
                with self._normalizer.python.spent:
                    self.programs.sweep()

    def end_interval(self) -> None:
        """Now and then forget what belongs to processes that have ended. Between two intervals, and
        with no definition waiting: what frames are made of must not go before they are defined."""
        now_s = time.monotonic()
        if now_s < self._clean_at:
            return
        self._clean_at = now_s + CLEAN_EVERY_S
        ended = self._ended.look(self._normalizer.tgids | self._identities.tgids)
        self._normalizer.forget_ended(ended)
        self._identities.forget_ended(ended)
        self._registry.faults.forget_ended(ended)
        if self._registry.is_to_sweep:
            modules = self.unwinder.used_modules() if self.unwinder is not None else ()
            self._registry.sweep(self._normalizer.used(), modules)

    def lengths(self) -> dict[str, int]:
        """How many entries each cache has."""
        return {
            **self._normalizer.lengths(),
            "defined_stacks": len(self._definitions),
            "labels": len(self._identities),
            "modules": len(self._registry.modules),
            "names": len(self._registry.names),
        }
