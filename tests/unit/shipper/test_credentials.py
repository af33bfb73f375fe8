from pathlib import Path

import pytest

from node_agent.shipper.client import Client, read_token
from node_agent.shipper.errors import CredentialError


def test_the_token_is_the_line_without_its_end(tmp_path):
    path = tmp_path / "token"
    path.write_text("  ff_abc123\n")
    assert read_token(path) == "ff_abc123"


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"a\nb", b"caf\xe9", b"a\0b", b"a\r\nX-Evil: 1", b"x" * 5000]
)
def test_other_contents_are_refused_without_being_shown(tmp_path, content):
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(CredentialError, match="must hold one line") as raised:
        read_token(path)
    assert content.strip() == b"" or content.decode("latin-1").strip() not in str(raised.value)


def test_a_missing_token_file_says_what_to_do(tmp_path):
    with pytest.raises(CredentialError, match="No such file") as raised:
        read_token(tmp_path / "none")
    assert "flamefleet token" in raised.value.remedy
    assert raised.value.exit_code == 2


def test_a_broken_ca_file(tmp_path):
    (tmp_path / "ca.pem").write_text("no certificate")
    for name in ("ca.pem", "none.pem"):
        with pytest.raises(CredentialError, match="cannot use the CA file"):
            Client("https://127.0.0.1", Path("token"), tmp_path / name, 1.0)
