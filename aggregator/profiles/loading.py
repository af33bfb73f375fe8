"""Reading what a `Dictionary` and a selector lack: stacks, frames with their modules, series."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from aggregator.profiles.frame_table import FrameRow

IDS_AT_ONCE = 50_000
_MAX_CACHED_BYTES = 128 << 20  # about; 200,000 sets of labels of the usual size
_NO_SERVICE = "[no service]"

_STACKS = text(
    "SELECT id, frames FROM stacks "
    "WHERE id = ANY(:ids) AND (frames IS NOT NULL OR refused_by IS NOT NULL)"
)
_FRAMES = text(
    'SELECT f.id, f."offset", f.function, f.file, f.line, f.resolved, m.id, m.kind, m.build_id, '
    "m.name, f.callers FROM frames f JOIN modules m ON m.id = f.module_id WHERE f.id = ANY(:ids)"
)
_RENAMED = text("SELECT max(named_at) FROM symbol_files")
_SERIES = text("SELECT id, service, version, labels FROM series WHERE id = ANY(:ids)")


@dataclass(frozen=True)
class SeriesLabels:
    """The labels of a series, and the service that it is shown under."""

    service: str
    labels: dict[str, str]


class SeriesCache:
    """Labels of series by id. They never change, so they are read once."""

    def __init__(self) -> None:
        self._series: dict[int, SeriesLabels] = {}
        self._bytes = 0

    def is_full(self) -> bool:
        """Whether it should be replaced by a new one before the next question."""
        return self._bytes > _MAX_CACHED_BYTES

    def __getitem__(self, series_id: int) -> SeriesLabels:
        """The series' labels; without any if its row is gone."""
        return self._series.get(series_id, SeriesLabels(_NO_SERVICE, {}))

    async def load(self, connection: AsyncConnection, series_ids: Iterable[int]) -> None:
        """Read those that are not known yet."""
        missing = [series_id for series_id in series_ids if series_id not in self._series]
        for ids in _slices(missing):
            for series_id, service, version, labels in await connection.execute(
                _SERIES, {"ids": ids}
            ):
                known = {**labels, "service": service, "version": version}
                self._series[series_id] = SeriesLabels(service or _NO_SERVICE, known)
                self._bytes += 200 + sum(100 + len(k) + len(v) for k, v in known.items())


async def load_stacks(
    connection: AsyncConnection, ids: list[int]
) -> list[tuple[int, bytes | None]]:
    """(id, packed frame ids) of those stacks that are defined, (id, None) of refused ones."""
    return [
        (row[0], row[1])
        for part in _slices(ids)
        for row in await connection.execute(_STACKS, {"ids": part})
    ]


async def load_frames(connection: AsyncConnection, ids: list[int]) -> list[FrameRow]:
    """The rows of frames, each with its module."""
    return [
        FrameRow(*row)
        for part in _slices(ids)
        for row in await connection.execute(_FRAMES, {"ids": part})
    ]


async def last_renaming(connection: AsyncConnection) -> datetime | None:
    """When uploaded symbols last took the place of names that were settled."""
    found: datetime | None = await connection.scalar(_RENAMED)
    return found


def _slices(ids: list[int]) -> Iterable[list[int]]:
    return (ids[start : start + IDS_AT_ONCE] for start in range(0, len(ids), IDS_AT_ONCE))
