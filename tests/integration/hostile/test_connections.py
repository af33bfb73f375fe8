"""Connections that ask nothing, ask slowly, or do not read: closed in time, and others served."""

import asyncio

from aiohttp import web

from aggregator import connections
from aggregator.app_keys import METRICS

ALIVE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
LIMIT_S = 120  # for a machine that is much slower


def closed(app, reason):
    found = app[METRICS].registry.get_sample_value(
        "flamefleet_connections_closed_total", {"reason": reason}
    )
    return int(found)


async def status_of(reader):
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), LIMIT_S)
    return int(head.split()[1])


async def is_alive(connect, port):
    reader, writer = await connect(port)
    writer.write(ALIVE)
    return await status_of(reader) == 200


async def ends(reader):
    """Whether the connection ends, quietly or not."""
    try:
        return await asyncio.wait_for(reader.read(), LIMIT_S) == b""
    except ConnectionError:
        return True


async def test_a_connection_that_says_nothing_is_closed(app, serve, connect):
    port = await serve(head_s=0.2)
    reader, _ = await connect(port)

    assert await ends(reader)
    assert closed(app, "head_too_slow") == 1


async def test_a_byte_at_a_time_extends_no_deadline(app, serve, connect):
    port = await serve(head_s=1.0)
    reader, writer = await connect(port)
    ended = asyncio.create_task(ends(reader))

    for sent in range(LIMIT_S * 10):
        if ended.done():
            break
        writer.write(ALIVE[:30][sent : sent + 1] or b"x")
        await asyncio.sleep(0.1)

    assert await ended
    assert closed(app, "head_too_slow") == 1
    assert await is_alive(connect, port)


async def test_a_second_head_has_a_deadline_too(app, serve, connect):
    port = await serve(head_s=0.5, idle_s=300)
    reader, writer = await connect(port)
    writer.write(ALIVE)
    assert await status_of(reader) == 200
    await reader.readexactly(len('{"alive": true}'))

    writer.write(b"GET /he")

    assert await ends(reader)
    assert closed(app, "head_too_slow") == 1


async def test_an_idle_connection_is_closed(app, serve, connect):
    port = await serve(idle_s=0.3)
    reader, writer = await connect(port)
    writer.write(ALIVE)
    assert await status_of(reader) == 200
    await reader.readexactly(len('{"alive": true}'))

    assert await ends(reader)


async def test_half_open_connections_make_room_for_others(app, serve, connect):
    """As many as there may be, and more: whoever asks is answered all the same."""
    port = await serve(most=20, most_of_address=20, head_s=600)

    for _ in range(60):
        await connect(port)
    for _ in range(5):
        assert await is_alive(connect, port)

    assert closed(app, "address_limit") + closed(app, "limit") >= 45
    assert app[METRICS].registry.get_sample_value("flamefleet_connections") <= 20


async def test_one_address_does_not_take_every_connection(app, serve, connect, wait_for):
    port = await serve(most=20, most_of_address=5, head_s=600)

    readers = [(await connect(port))[0] for _ in range(12)]

    assert await ends(readers[0])
    await wait_for(lambda: closed(app, "address_limit") == 7, "seven are closed")
    assert await is_alive(connect, port)


async def test_with_every_connection_at_work_a_new_one_is_refused(app, serve, connect, enrol):
    """A request under way is never given up for a newcomer."""
    port = await serve(most=2, most_of_address=2)
    head = (
        "POST /api/v1/batches HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {enrol('web-1')}\r\nContent-Length: 9\r\n\r\n"
    )
    working = [await connect(port) for _ in range(2)]
    for _, writer in working:
        writer.write(head.encode() + b"FF")
    refused = app[METRICS].registry
    for _ in range(LIMIT_S * 20):
        if refused.get_sample_value("flamefleet_body_bytes") == 4:
            break
        await asyncio.sleep(0.05)

    reader, _ = await connect(port)
    assert await ends(reader)

    assert closed(app, "limit") == 1
    for reader, writer in working:
        writer.write(b"\x01Bxyzab")
        assert await status_of(reader) == 400


async def answer_large(request):
    return web.Response(body=bytes(32 << 20))  # more than the buffers of both sides hold


async def ask_without_reading(connect, port):
    _, writer = await connect(port)
    writer.transport.pause_reading()
    writer.write(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return writer


async def test_a_client_that_does_not_read_is_closed(app, serve, connect, wait_for, monkeypatch):
    monkeypatch.setattr(connections, "MIN_BYTES_PER_S", 1 << 30)
    app.router.add_get("/large", answer_large)
    port = await serve(read_s=0.2)

    await ask_without_reading(connect, port)

    await wait_for(lambda: closed(app, "answer_not_read") == 1, "it is closed")
    assert await is_alive(connect, port)


async def test_unread_answers_have_a_limit_together(app, serve, connect, wait_for, monkeypatch):
    monkeypatch.setattr(connections, "MAX_UNREAD_BYTES", 40 << 20)
    app.router.add_get("/large", answer_large)
    port = await serve(read_s=600)

    for _ in range(3):
        await ask_without_reading(connect, port)

    await wait_for(lambda: closed(app, "unread_answers") == 2, "two are closed")
    assert await is_alive(connect, port)


async def test_a_slow_reader_gets_all_of_a_large_answer(app, serve, connect):
    app.router.add_get("/large", answer_large)
    port = await serve(idle_s=0.5)
    reader, writer = await connect(port)
    writer.write(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")

    assert await status_of(reader) == 200
    await asyncio.sleep(2.0)  # longer than an idle connection lasts

    assert len(await asyncio.wait_for(reader.readexactly(32 << 20), LIMIT_S)) == 32 << 20


async def test_refused_body_is_not_read_on(app, serve, connect):
    """Without a token nothing is taken in, however much is sent."""
    port = await serve()
    reader, writer = await connect(port)
    head = "POST /api/v1/batches HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8000000\r\n\r\n"
    writer.write(head.encode() + bytes(1000))

    assert await status_of(reader) == 401
    await reader.readuntil(b"}}")
    assert await ends(reader)
    assert app[METRICS].registry.get_sample_value("flamefleet_body_bytes") == 0
