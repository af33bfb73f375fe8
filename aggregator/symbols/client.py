"""Send a file of debug information to the centre: what `flamefleet symbols upload` does."""

import http.client
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlsplit

from aggregator.symbols.errors import UploadFailedError

PATH = "/api/v1/debug-files"
_CHUNK_BYTES = 1 << 20
# The centre answers when it has read the file, which takes minutes for gigabytes.
TIMEOUT_S = 1_800.0
_ELF = b"\x7fELF"


def upload_file(path: Path, url: str, token: str, ca_file: Path | None = None) -> dict[str, Any]:
    """The centre's answer to the ELF file `path`: build_id, module, has_lines, replaced, frames.

    `url` is the centre's address, https:// with a certificate that is checked (against `ca_file` if
    given) or http://. Raises UploadFailedError with the centre's reason.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(_ELF)) != _ELF:
                raise UploadFailedError(
                    f"{path} is not an ELF file",
                    remedy="name a program, a library, or its file of debug information",
                )
            size = file.seek(0, 2)
            file.seek(0)
            return _send(_connect(url, ca_file), urlsplit(url).path, file, size, path.name, token)
    except ssl.SSLCertVerificationError as error:
        raise UploadFailedError(
            f"the certificate of {url} is not trusted: {error.verify_message}",
            remedy="name the authority's certificate with --ca-file",
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise UploadFailedError(
            f"{path} could not be sent to {url}: {error}",
            remedy="check the file and the address (--url), and that the aggregator runs",
        ) from error


def _connect(url: str, ca_file: Path | None) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UploadFailedError(
            f"{url!r} is no address", remedy="give http://HOST:PORT or https://"
        )
    if parts.scheme == "http":
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT_S)
    context = ssl.create_default_context(cafile=ca_file)
    return http.client.HTTPSConnection(
        parts.hostname, parts.port, timeout=TIMEOUT_S, context=context
    )


def _send(
    connection: http.client.HTTPConnection,
    prefix: str,
    file: IO[bytes],
    size: int,
    name: str,
    token: str,
) -> dict[str, Any]:
    connection.putrequest("POST", f"{prefix.rstrip('/')}{PATH}?name={quote(name)}")
    connection.putheader("Authorization", f"Bearer {token}")
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
    connection.close()
    if response.status == 201:
        answer: dict[str, Any] = json.loads(body)
        return answer
    try:
        error = json.loads(body)["error"]
        raise UploadFailedError(f"{name}: {error['message']}", remedy=error["remedy"])
    except (ValueError, KeyError, TypeError):
        raise UploadFailedError(f"{name}: the centre answered {response.status}") from None


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk
