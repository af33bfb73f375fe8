import json
import subprocess
import sys

import pytest

from node_agent.cli import main


def run(*arguments: str, **changes) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "node_agent", *arguments],
        capture_output=True,
        text=True,
        check=False,
        **changes,
    )


@pytest.mark.parametrize(
    "arguments", [[], ["fly"], ["record"], ["check", "--yaml"], ["ship", "--rate", "5"]]
)
def test_wrong_usage_is_2(arguments, capsys):
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    assert "usage: flamefleet-agent" in capsys.readouterr().err


def test_version_and_help(capsys):
    for option in ("--version", "--help"):
        with pytest.raises(SystemExit) as raised:
            main([option])
        assert raised.value.code == 0
    assert "exit codes: 0 fine" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--rate", "0"], "rate_hz is '0'; it must be a whole number of 1 to 1000 Hz"),
        (["run", "--preset", "prodution"], "did you mean production?"),
        (["run", "--interval", "-1"], "interval_s is '-1'; it must be above 0"),
        (["run", "--max-samples", "10000001"], "max_samples is '10000001'"),
        (["run", "--config", "/nonexistent.toml"], "cannot read the configuration"),
        (["record", "-o", "x.folded", "--rate", "1001"], "--rate is 1001"),
        (["record", "-o", "x.folded", "--seconds", "0"], "--seconds is 0"),
        (["record", "-o", "x.folded", "--seconds", "nan"], "--seconds is nan"),
        (["record", "-o", "x.svg"], "names no known format"),
        (["status", "--config", "/nonexistent.toml"], "cannot read the configuration"),
    ],
)
def test_a_wrong_value_is_2_with_one_clear_message(arguments, words, capsys):
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert words in said.err
    assert said.err.startswith(f"flamefleet-agent {arguments[0]}: ")
    assert said.out == ""


def test_every_fault_is_a_line(tmp_path, capsys):
    path = tmp_path / "agent.toml"
    path.write_text("[agent]\nrate = 5\nmax_samples = 0\n")
    assert main(["status", "--config", str(path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[0] for line in lines[:2]] == ["flamefleet-agent status"] * 2
    assert "did you mean rate_hz?" in lines[0]


def test_status_of_an_agent_that_never_ran_makes_no_spool(tmp_path, capsys):
    spool = tmp_path / "spool"
    assert main(["status", "--spool-dir", str(spool)]) == 1
    assert capsys.readouterr().out.startswith("agent     not running\n")
    assert not spool.exists()
    assert main(["status", "--json", "--spool-dir", str(spool)]) == 1
    assert json.loads(capsys.readouterr().out)["running"] is False


def test_each_command_loads_only_its_own_side():
    code = (
        "import sys, node_agent.cli as cli\n"
        "assert not [m for m in sys.modules if m.startswith('node_agent.commands')]\n"
        "cli.main(['status', '--spool-dir', '/nonexistent'])\n"
        "assert 'node_agent.sampler' not in sys.modules\n"
        "assert 'node_agent.kernel' not in sys.modules\n"
        "assert 'http.client' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == 0


def test_a_reader_that_goes_away_is_no_traceback(tmp_path):
    code = (
        "import os, sys\n"
        "read, write = os.pipe()\n"
        "os.dup2(write, 1)\n"
        "os.close(write)\n"
        "os.close(read)\n"
        "from node_agent.cli import main\n"
        f"code = main(['status', '--spool-dir', {str(tmp_path / 'x')!r}])\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, check=False
    )
    assert done.stderr == ""
    assert done.returncode == 1
