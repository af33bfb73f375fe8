"""Connections that ask nothing, ask slowly, or do not read: closed in time, and others served."""

import asyncio

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


async def test_with_every_connection_at_work_a_new_one_is_refused(app, serve, connect, node):
    """A request under way is never given up for a newcomer."""
    port = await serve(most=2, most_of_address=2)
    head = (
        "POST /api/v1/batches HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {node.token}\r\nContent-Length: 9\r\n\r\n"
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


async def test_a_client_that_does_not_read_is_closed(app, serve, connect, wait_for):
    """The answer is larger than the buffers of both sides of the connection."""
    large = bytes(32 << 20)
    path = "/large"

    async def get_large(request):
        from aiohttp import web

        return web.Response(body=large)

    app.router.add_get(path, get_large)
    port = await serve(read_s=0.2)
    _, writer = await connect(port)
    writer.transport.pause_reading()
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

    await wait_for(lambda: closed(app, "idle") == 0 and is_writing(app), "an answer waits")
    assert await is_alive(connect, port)


def is_writing(app):
    return app[METRICS].registry.get_sample_value("flamefleet_connections") >= 1


async def test_refused_body_is_not_read_on(app, serve, connect):
    """Without a token nothing is taken in, however much is sent."""
    port = await serve()
    reader, writer = await connect(port)
    head = "POST /api/v1/batches HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8000000\r\n\r\n"
    writer.write(head.encode() + bytes(1000))

    assert await status_of(reader) == 401
    assert await reader.read()  # the rest of the answer
    assert await ends(reader)
    assert app[METRICS].registry.get_sample_value("flamefleet_body_bytes") == 0
