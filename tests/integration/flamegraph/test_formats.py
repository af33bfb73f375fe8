"""Flamegraphs as folded stacks and pprof."""

import shutil
import subprocess

import pytest

from wire.schema import Module, ModuleKind

APP = Module(ModuleKind.NATIVE, b"\x01" * 20, "app")
MAIN, WORK = (APP, 0x1000), (APP, 0x1010)


async def test_folded(client, send_at, minutes_ago):
    await send_at("web-1", minutes_ago(2), {(MAIN, WORK): 38, (MAIN,): 19})
    async with client.get("/api/v1/flamegraph", params={"format": "folded"}) as response:
        assert response.status == 200
        assert response.content_type == "text/plain"
        assert await response.text() == (
            "demo;app+0x1000 1000000000\ndemo;app+0x1000;app+0x1010 2000000000\n"
        )


async def test_pprof_is_opened_by_the_real_tool(client, send_at, rows, tmp_path, minutes_ago):
    if shutil.which("go") is None:
        pytest.skip("the go tool is missing: install Go to read pprof files back")
    await send_at("web-1", minutes_ago(2), {(MAIN, WORK): 190, (MAIN,): 95})
    await send_at("web-1", minutes_ago(2) + 10, {(MAIN,): 100}, rate_millihertz=100_000)
    rows(
        "UPDATE frames SET function = 'main', file = 'app.c', line = 7, resolved = true "
        'WHERE "offset" = 4096'
    )
    path = tmp_path / "profile.pb.gz"
    async with client.get("/api/v1/flamegraph", params={"format": "pprof"}) as response:
        assert response.status == 200
        assert "Content-Encoding" not in response.headers
        path.write_bytes(await response.read())

    def pprof(*flags):
        command = ["go", "tool", "pprof", *flags, str(path)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    top = pprof("-top", "-unit=ms")
    assert "Type: cpu" in top
    assert "16000ms total" in top
    lines = {line.split()[-1]: line.split()[:5:3] for line in top.splitlines() if "%" in line}
    assert lines["main"] == ["6000ms", "16000ms"]
    assert lines["app+0x1010"] == ["10000ms", "10000ms"]
    assert "385" in pprof("-top", "-sample_index=samples")
    raw = pprof("-raw")
    assert "app.c:7" in raw
    assert "service:[demo]" in raw
