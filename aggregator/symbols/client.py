"""Send a file of debug information to the centre: what `flamefleet symbols upload` does."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from aggregator.client import Centre, reach, refusal
from aggregator.symbols.errors import UploadFailedError

PATH = "/api/v1/debug-files"
_CHUNK_BYTES = 1 << 20
# The centre answers when it has read the file, which takes minutes for gigabytes.
TIMEOUT_S = 1_800.0
_ELF = b"\x7fELF"


def upload_file(path: Path, centre: Centre) -> dict[str, Any]:
    """The centre's answer to the ELF file `path`: build_id, module, has_lines, replaced, frames.

    Raises UploadFailedError for the file, or CentreError with the centre's reason.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise UploadFailedError(
            f"{path} cannot be read: {error.strerror}", remedy="check the file's name and rights"
        ) from error
    with file:
        if file.read(len(_ELF)) != _ELF:
            raise UploadFailedError(
                f"{path} is not an ELF file",
                remedy="name a program, a library, or its file of debug information",
            )
        size = file.seek(0, 2)
        file.seek(0)
        return _send(centre, file, size, path.name)


def _send(centre: Centre, file: IO[bytes], size: int, name: str) -> dict[str, Any]:
    with reach(centre.url), centre.connect(TIMEOUT_S) as connection:
        connection.putrequest("POST", f"{centre.prefix}{PATH}?name={quote(name)}")
        connection.putheader("Authorization", f"Bearer {centre.token}")
        connection.putheader("Content-Type", "application/octet-stream")
        connection.putheader("Content-Length", str(size))
        try:
            connection.endheaders()
            for chunk in _chunks(file):
                connection.send(chunk)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before all of it was sent: the answer says why
        response = connection.getresponse()
        body = response.read()
    if response.status != 201:
        error = refusal(response.status, body)
        raise UploadFailedError(f"{name}: {error.message}", remedy=error.remedy)
    answer: dict[str, Any] = json.loads(body)
    return answer


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk
