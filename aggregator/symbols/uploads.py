"""Taking in files of debug information from operators.

An upload is read at once, in the sandboxed child, so that whoever uploads hears what is wrong. Its
symbols take the place of what a node sent and are replaced by no node, only by another upload.
Frames of the module are named again by the worker: old flamegraphs change, too.
"""

import asyncio
import os
import tempfile
from dataclasses import dataclass
from typing import IO

from aiohttp import web
from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from aggregator.bodies import (
    BODY_TIMEOUT_S,
    MIN_BYTES_PER_S,
    BodyEncodingError,
    BodyError,
    BodyTooLargeError,
    BodyTooSlowError,
)
from aggregator.symbols.errors import (
    RefusedExtractError,
    RefusedUploadError,
    UploadLengthError,
    UploadSpaceError,
)
from aggregator.symbols.models import Frame, Module, SymbolFile
from aggregator.symbols.names import clean
from aggregator.symbols.sandbox import Upload, parse_upload
from aggregator.workers import Workers
from wire.hashes import module_hash
from wire.schema import Module as WireModule
from wire.schema import ModuleKind

_WRITE_BYTES = 1 << 20
_KERNEL_KINDS = (ModuleKind.KERNEL, ModuleKind.KERNEL_MODULE)


@dataclass(frozen=True)
class Stored:
    """What became of an upload."""

    build_id: bytes
    module: str
    has_lines: bool
    replaced: bool  # symbols that were there before
    frames: int  # of stored profiles that will be named (again)


async def receive(request: web.Request, limit_bytes: int, readers: Workers) -> Upload:
    """Read the body, an ELF file of at most `limit_bytes`, into an unnamed file and have one of
    `readers` parse it.

    Raises RefusedUploadError, the errors of `aggregator.bodies`, UploadLengthError or
    UploadSpaceError.
    """
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise BodyEncodingError("the body has a Content-Encoding")
    size = request.content_length
    if size is None:
        raise UploadLengthError("the request has no Content-Length")
    if size > limit_bytes:
        raise BodyTooLargeError(
            f"a file of {size} bytes; at most {limit_bytes} are taken",
            remedy="strip what is no debug information (objcopy --only-keep-debug), "
            "or raise symbols_upload_bytes at the centre",
        )
    file = await asyncio.to_thread(tempfile.TemporaryFile)
    is_handed_over = False
    try:
        allowed_s = BODY_TIMEOUT_S + size / MIN_BYTES_PER_S
        try:
            await asyncio.wait_for(_save(request, file, size), allowed_s)
        except asyncio.TimeoutError:
            raise BodyTooSlowError(f"the file did not arrive within {allowed_s:.0f} s") from None
        except (ConnectionError, web.RequestPayloadError) as error:
            raise BodyError(f"the file broke off: {error}") from error
        except OSError as error:
            raise UploadSpaceError(f"the file cannot be kept: {error.strerror}") from error
        is_handed_over = True
        return await readers.run(_parse, file, size)
    finally:
        if not is_handed_over:
            await asyncio.to_thread(file.close)


async def store_upload(session: AsyncSession, upload: Upload, file_name: str, by: str) -> Stored:
    """Keep what an upload by the operator `by` holds. Raises RefusedUploadError."""
    kernel = select(Module.id).where(
        Module.build_id == upload.build_id, Module.kind.in_(_KERNEL_KINDS)
    )
    if (await session.execute(kernel)).first() is not None:
        raise RefusedUploadError(
            f"build {upload.build_id.hex()} is a kernel or one of its modules",
            remedy="nothing to do: these are named by the kernel's own table, from the nodes",
        )
    name = clean(file_name.removesuffix(".debug"))
    signed = module_hash(WireModule(ModuleKind.NATIVE, upload.build_id, name))
    await session.execute(
        insert(Module)
        .values(
            kind=ModuleKind.NATIVE,
            build_id=upload.build_id,
            name=name,
            hash64=signed - (1 << 64) if signed >= 1 << 63 else signed,
        )
        .on_conflict_do_nothing()
    )
    module = (
        await session.execute(
            select(Module.id, Module.name)
            .where(Module.kind == ModuleKind.NATIVE, Module.build_id == upload.build_id)
            .with_for_update()
        )
    ).one()
    replaced = await session.scalar(
        select(SymbolFile.module_id).where(SymbolFile.module_id == module.id).with_for_update()
    )
    values = {
        "format": "symcache",
        "data": upload.data,
        "source_node_id": None,
        "uploaded_by": by,
        "file_name": clean(file_name),
        "has_lines": upload.has_lines,
        "created_at": func.clock_timestamp(),
        "named_at": None,
    }
    await session.execute(
        insert(SymbolFile)
        .values(module_id=module.id, **values)
        .on_conflict_do_update(index_elements=[SymbolFile.module_id], set_=values)
    )
    await session.execute(
        update(Module)
        .where(Module.id == module.id)
        .values(symbol_state="ready", refused_reason=None, requested_node_id=None)
    )
    await session.execute(
        update(Frame).where(Frame.module_id == module.id, Frame.resolved).values(resolved=False)
    )
    frames = await session.scalar(select(func.count()).where(Frame.module_id == module.id))
    return Stored(upload.build_id, module.name, upload.has_lines, replaced is not None, frames or 0)


async def _save(request: web.Request, file: IO[bytes], size: int) -> None:
    """Write the body, which has `size` bytes by its header."""
    pending = bytearray()
    async for chunk in request.content.iter_chunked(_WRITE_BYTES):
        pending += chunk
        if len(pending) >= _WRITE_BYTES:
            await asyncio.to_thread(file.write, bytes(pending))
            pending.clear()
    await asyncio.to_thread(file.write, bytes(pending))
    await asyncio.to_thread(file.flush)
    if file.tell() != size:
        raise BodyError(f"the file broke off after {file.tell()} of {size} bytes")


def _parse(file: IO[bytes], size: int) -> Upload:
    """Closes the file: whoever sent it may be gone before it is read."""
    with file:
        os.fchmod(file.fileno(), 0o444)  # the child is another user; the file has no name
        file.seek(0)
        try:
            return parse_upload(file, size)
        except RefusedExtractError as error:
            raise RefusedUploadError(error.message) from error
