"""Which broker URLs are open to strangers."""

import socket

import pytest

from aggregator.broker_url import open_to_strangers


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://localhost:6379/0", "localhost asks nobody"),
        ("redis://valkey.example:6379/0", "valkey.example asks nobody"),
        ("rediss://user@valkey.example/0", "asks nobody"),
        ("redis://:secret@localhost/0", ""),
        ("rediss://user:secret@valkey.example/0", ""),
        ("redis+socket:///nonexistent/valkey.sock", ""),
    ],
)
def test_a_url_without_a_password_is_open(url, words):
    assert words in open_to_strangers(url)
    assert bool(words) == bool(open_to_strangers(url))


@pytest.mark.parametrize(
    ("folder_mode", "socket_mode", "is_open"),
    [(0o755, 0o777, True), (0o700, 0o777, False), (0o755, 0o700, False)],
)
def test_a_socket_is_open_where_all_may_reach_and_write_it(
    tmp_path_factory, tmp_path, folder_mode, socket_mode, is_open
):
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_mode & 0o001 == 0:
            folder.chmod(0o711)  # pytest's own folders
    closed = tmp_path / "f"
    closed.mkdir()
    path = closed / "v.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        path.chmod(socket_mode)
        closed.chmod(folder_mode)
        assert bool(open_to_strangers(f"redis+socket://{path}?virtual_host=0")) is is_open
        assert open_to_strangers(f"redis+socket://:secret@{path}") == ""
