"""Debug information uploaded by an operator: authenticated, keyed by build id, above every node."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from aggregator.access.operators import create_operator_token, revoke_operator_tokens
from aggregator.app import create_app
from aggregator.app_keys import CONFIG
from aggregator.config import CentreConfig
from aggregator.db import session_scope
from aggregator.symbols.tasks import symbolize_pending
from node_agent.symbols.build_ids import read_build_id
from node_agent.symbols.extract import encode_extract
from wire.schema import Module, ModuleKind

SOURCE = """
static inline __attribute__((always_inline)) int inner(int n) {
  volatile int s = 0;
  for (int i = 0; i < n; i++) s += i;
  return s;
}
static inline __attribute__((always_inline)) int middle(int n) { return inner(n) + 1; }
__attribute__((noinline)) int outer(int n) { return middle(n) * 2; }
int main(int argc, char **argv) { return outer(argc * 1000); }
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `whole`, its stripped form `app` and its debug information `app.debug`."""
    folder = tmp_path_factory.mktemp("upload")
    (folder / "app.c").write_text(SOURCE)
    for command in (
        "gcc -O2 -g -o whole app.c",
        "objcopy --only-keep-debug whole app.debug",
        "strip -s -o app whole",
    ):
        subprocess.run(command.split(), check=True, cwd=folder)
    return folder


def build_id_of(elf: Path) -> bytes:
    with elf.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        return read_build_id(lambda at, length: os.pread(file.fileno(), length, at), size)


def offset_of(whole: Path, function: str) -> int:
    """File offset of a function's first byte, as binutils gives it."""
    listing = subprocess.run(
        ["objdump", "-d", "-F", f"--disassemble={function}", whole],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    (line,) = [each for each in listing.splitlines() if f"<{function}> (File Offset" in each]
    return int(line.partition("File Offset: ")[2].rstrip("):"), 16)


@pytest.fixture
def operator(database: Any) -> str:
    """The token of operator ci."""
    with session_scope(database) as session:
        return create_operator_token(session, "ci")


@pytest.fixture
def send_file(client: Any, operator: str) -> Any:
    """Uploads bytes; the status and the answer."""

    async def send(
        content: bytes, name: str = "app.debug", token: str = operator, **headers: str
    ) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token}", **headers}
        path = f"/api/v1/debug-files?name={name}"
        async with client.post(path, data=content, headers=headers) as response:
            return response.status, await response.json()

    return send


@pytest.fixture
def work(database: Any, centre_config: Any) -> Any:
    """Runs the worker's job once."""
    return lambda: asyncio.to_thread(symbolize_pending, database, centre_config)


@pytest.fixture
def ask(client: Any) -> Any:
    """ask(format): the flamegraph's text or bytes."""

    async def ask_centre(form: str) -> Any:
        parameters = {"format": form, "from": "now-10m"}
        async with client.get("/api/v1/flamegraph", params=parameters) as response:
            assert response.status == 200
            return await response.read()

    return ask_centre


async def test_late_debug_information_repairs_flamegraphs_with_inlined_functions_and_lines(
    program, node, send_file, work, ask, rows, tmp_path
):
    build_id = build_id_of(program / "app")
    module = Module(ModuleKind.NATIVE, build_id, "app")
    stack = ((module, offset_of(program / "whole", "main") + 1),)
    stack += ((module, offset_of(program / "whole", "outer") + 8),)
    await node.send(node.batch({stack: 7}, labels={"service": "shop"}))
    await node.define([stack])
    before = (await ask("folded")).decode()
    assert f"shop;app+0x{stack[0][1]:x};app+0x{stack[1][1]:x} " in before
    assert json.loads(await ask("columnar"))["coverage"]["unsymbolized_share"] == 1.0

    status, answer = await send_file((program / "app.debug").read_bytes())
    assert (status, answer["build_id"], answer["module"]) == (201, build_id.hex(), "app")
    assert answer["has_lines"]
    assert not answer["replaced"]
    assert answer["frames"] == 2
    assert await work() == 2

    assert "shop;main;outer;middle;inner " in (await ask("folded")).decode()
    columnar = json.loads(await ask("columnar"))
    assert columnar["coverage"]["unsymbolized_share"] == 0.0
    strings, nodes = columnar["strings"], columnar["nodes"]
    places = {
        strings[columnar["functions"]["name"][function]]: (Path(strings[file]).name, line)
        for function, file, line in zip(
            nodes["function"], nodes["file"], nodes["line"], strict=True
        )
        if file >= 0
    }
    assert places["outer"] == ("app.c", 8)
    assert places["middle"] == ("app.c", 7)
    assert places["inner"][1] in (3, 4, 5)

    go = shutil.which("go")
    if go is not None:
        profile = tmp_path / "app.pb.gz"
        profile.write_bytes(await ask("pprof"))
        shown = subprocess.run(
            [go, "tool", "pprof", "-symbolize=none", "-lines", "-traces", profile],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        assert "inner" in shown and "(inline)" in shown, shown


async def test_an_upload_outranks_a_nodes_extract_at_once_and_for_good(
    program, node, new_node, send_file, work, ask, rows
):
    build_id = build_id_of(program / "whole")
    module = Module(ModuleKind.NATIVE, build_id, "app")
    stack = ((module, offset_of(program / "whole", "outer") + 8),)
    await node.send(node.batch({stack: 1}))
    await node.define([stack])
    assert (await node.send(node.batch({}))).directives
    request = {"node": node.name, "module_kind": 0, "build_id": build_id.hex(), "name": "app"}
    with (program / "whole").open("rb") as file:
        extract = encode_extract(request, file.fileno())
    assert (await node.post("/api/v1/symbols", extract)).status == 204
    await work()
    assert "demo;outer 5" in (await ask("folded")).decode()  # keeps its names from here on

    status, answer = await send_file((program / "whole").read_bytes(), name="app")
    assert status == 201
    assert answer["replaced"]
    await work()
    assert "demo;outer;middle;inner 5" in (await ask("folded")).decode()

    # another node that has the same build cannot rename it, and neither can the first
    other = new_node("web-2")
    for who in (node, other):
        await who.send(who.batch({stack: 1}))
        await who.define([stack])
        assert (await who.post("/api/v1/symbols", extract)).status in (204, 403, 422)
    await work()
    assert rows("SELECT uploaded_by, source_node_id, file_name, format FROM symbol_files") == [
        ("ci", None, "app", "symcache")
    ]
    assert rows("SELECT function, jsonb_array_length(callers) FROM frames WHERE resolved") == [
        ("inner", 2)
    ]
    assert rows("SELECT name, defined_by IS NOT NULL FROM modules WHERE kind = 0") == [
        ("app", True)
    ]


async def test_a_build_that_was_uploaded_before_any_node_has_it_is_named_as_it_comes(
    program, node, send_file, work, rows, client
):
    status, answer = await send_file((program / "app.debug").read_bytes())
    assert (status, answer["frames"]) == (201, 0)
    module = Module(ModuleKind.NATIVE, build_id_of(program / "app"), "evil")
    stack = ((module, offset_of(program / "whole", "outer") + 8),)
    first = await node.send(node.batch({stack: 1}))
    await node.define([stack])
    second = await node.send(node.batch({stack: 1}))
    assert [*first.directives, *second.directives] == []  # nobody is asked for an extract
    await work()
    assert rows("SELECT function FROM frames") == [("inner",)]
    assert rows("SELECT name FROM modules WHERE kind = 0") == [("app",)]


async def test_only_operators_upload(program, node, send_file, operator, database, rows):
    content = (program / "app.debug").read_bytes()
    for token in (node.token, "ffo_" + "x" * 43, "y" * 500):
        status, answer = await send_file(content, token=token)
        assert (status, answer["error"]["code"]) == (401, "unknown_token")
    with session_scope(database) as session:
        assert revoke_operator_tokens(session, "ci") == 1
    status, _ = await send_file(content)
    assert status == 401
    assert rows("SELECT count(*) FROM symbol_files") == [(0,)]
    # nor is an operator a node
    async with await node.client.post(
        "/api/v1/batches", data=b"", headers={"Authorization": f"Bearer {operator}"}
    ) as response:
        assert response.status == 401


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read"),
        (b"nonsense" * 1_000, "not an ELF file"),
        (b"\x7fELF\x02\x01\x01" + bytes(500), "program headers"),
    ],
)
async def test_what_is_no_debug_information_is_refused_in_words(send_file, rows, content, words):
    status, answer = await send_file(content)
    assert (status, answer["error"]["code"]) == (422, "upload_refused")
    assert words in answer["error"]["message"]
    assert rows("SELECT count(*) FROM symbol_files") == [(0,)]


async def test_a_damaged_file_is_refused_or_read_and_the_centre_goes_on(program, send_file, client):
    content = (program / "app.debug").read_bytes()
    for damaged in (content[:-500], content[: len(content) // 2], content[:64] + bytes(4_000)):
        status, _ = await send_file(damaged)
        assert status in (201, 422)
    async with client.get("/healthz") as response:
        assert response.status == 200


async def test_sizes_are_bounded(client, app, operator):
    headers = {"Authorization": f"Bearer {operator}"}

    async def chunks():
        yield b"x"

    async with client.post("/api/v1/debug-files", data=chunks(), headers=headers) as response:
        assert response.status == 411
    too_long = {**headers, "Content-Length": str(app[CONFIG].symbols_upload_bytes + 1)}
    async with client.post("/api/v1/debug-files", data=b"x", headers=too_long) as response:
        assert response.status == 413


def test_the_command_uploads_and_lists(program, postgres_url, valkey_url, database, tmp_path):
    config = CentreConfig(database_url=postgres_url, broker_url=valkey_url)

    def flamefleet(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if "FLAMEFLEET" not in name}
        kept |= {"FLAMEFLEET_DATABASE_URL": postgres_url, "FLAMEFLEET_BROKER_URL": valkey_url}
        command = [str(Path(sys.executable).with_name("flamefleet")), *arguments]
        return subprocess.run(
            command,
            env=kept | environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    made = flamefleet("token", "create", "--operator", "ci", "--json")
    token = json.loads(made.stdout)["token"]
    (tmp_path / "token").write_text(token + "\n")

    async def serve_and_upload() -> list[subprocess.CompletedProcess[str]]:
        runner = web.AppRunner(create_app(config))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        done = [
            await asyncio.to_thread(
                flamefleet, "symbols", "upload", *arguments, "--url", url, **env
            )
            for arguments, env in (
                ((str(program / "app.debug"), "--token-file", str(tmp_path / "token")), {}),
                ((str(program / "app.c"), "--token", token), {}),
                ((str(program / "whole"), "--token", "wrong"), {}),
                ((str(program / "whole"), "--json"), {"FLAMEFLEET_OPERATOR_TOKEN": token}),
            )
        ]
        await runner.cleanup()
        return done

    plain, not_elf, refused, spoken = asyncio.run(serve_and_upload())
    assert plain.returncode == 0, plain.stderr
    build_id = build_id_of(program / "app").hex()
    assert f"build {build_id}, functions, lines and inlined functions" in plain.stdout
    assert (not_elf.returncode, refused.returncode) == (1, 1)
    assert "is not an ELF file" in not_elf.stderr
    assert "--operator" in refused.stderr
    assert json.loads(spoken.stdout)["replaced"]

    listed = flamefleet("symbols", "list")
    assert listed.returncode == 0, listed.stderr
    assert build_id in listed.stdout
    assert "upload by ci (whole)" in listed.stdout
    (row,) = json.loads(flamefleet("symbols", "list", "--json").stdout)
    assert (row["state"], row["source"], row["has_lines"]) == ("ready", "upload by ci", True)
    nobody = flamefleet("symbols", "upload", str(program / "whole"))
    assert nobody.returncode == 2
    assert "operator's token" in nobody.stderr
