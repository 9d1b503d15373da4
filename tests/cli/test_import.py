"""``agent-service import``: what it shows, what it refuses, and that it shows no password."""

import io
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from agent_service.cli import main
from agent_service.core.settings import reset_settings
from tests.cli.conftest import Command


@pytest.fixture(autouse=True)
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """DATABASE_URL of a database that is not there yet."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'target.db'}"
    monkeypatch.setenv("DATABASE_URL", url)
    reset_settings()
    return url


@pytest.fixture
def source(tmp_path: Path) -> str:
    """URL of two conversations in the tables that the OpenAI SDK makes; the last item of the second is no JSON."""
    path = tmp_path / "source.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            """
            CREATE TABLE agent_sessions (session_id TEXT PRIMARY KEY, created_at TIMESTAMP, updated_at TIMESTAMP);
            CREATE TABLE agent_messages (
                id INTEGER PRIMARY KEY, session_id TEXT, message_data TEXT, created_at TIMESTAMP
            );
            INSERT INTO agent_sessions VALUES ('a', '2026-01-01', '2026-01-01'), ('b', '2026-01-01', '2026-01-01');
            INSERT INTO agent_messages (session_id, message_data, created_at) VALUES
                ('a', '{"role": "user", "content": "hunter2"}', '2026-01-01 00:00:00'),
                ('b', '{"role": "user", "content": "hunter2"}', '2026-01-01 00:00:00'),
                ('b', '{hunter2', '2026-01-01 00:00:01');
            """
        )
    return f"sqlite:///{path}"


def test_a_run_stops_at_what_cannot_be_brought_over_and_goes_on_from_there(
    source: str, as_json: Command, refused: Callable[..., str]
):
    planned = as_json("import", "openai", source, "--user", "ada", "--dry-run", "--skip-problems", code=1)
    stopped = refused("import", "openai", source, "--user", "ada")
    skipped = as_json("import", "openai", source, "--user", "ada", "--skip-problems", code=1)
    again = as_json("import", "openai", source, "--user", "ada", "--skip-problems", code=1)

    assert "stopped after 1 conversations at session 'b', agent_messages id 3: message_data is no JSON" in stopped
    assert "hunter2" not in stopped
    assert (planned["added"], planned["items_added"], planned["dry_run"]) == (2, 2, True)
    assert (skipped["earlier"], skipped["added"], skipped["items_skipped"]) == (1, 1, 1)
    assert skipped["first_problems"][0]["place"] == "session 'b', agent_messages id 3"
    assert (again["unchanged"], again["added"], again["problems"]) == (2, 0, 1)


def test_a_second_run_says_that_it_changed_nothing(source: str, capsys: pytest.CaptureFixture[str]):
    path = source.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM agent_messages WHERE id = 3")

    assert main(["import", "openai", source, "--user", "ada", "--agent", "trains", "--tenant", "acme"]) == 0
    first = capsys.readouterr().out
    assert main(["import", "openai", source, "--user", "ada", "--tenant", "acme"]) == 0
    second = capsys.readouterr().out

    assert "nothing was written" not in first
    assert "nothing was written: the target has all of it already" in second
    assert "hunter2" not in first + second


def test_the_url_may_come_from_standard_input(source: str, as_json: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{source}\n"))

    assert as_json("import", "openai", "-", "--user", "ada", "--skip-problems", code=1)["added"] == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["openai", "postgresql://ada:hunter2@127.0.0.1:1/x", "--user", "ada"], "cannot connect to"),
        (["openai", "mysql://ada:hunter2@h/x", "--user", "ada"], "must begin with postgresql:// or sqlite:///"),
        (["adk", "postgresql://ada:hunter2@h:1/x?no=1"], "has the option"),
        (["langgraph", "sqlite:///nowhere.db"], "is no file; check the path"),
        (["adk", "SOURCE"], "no table 'sessions'; it has 'agent_messages', 'agent_sessions'"),
        (["openai", "SOURCE", "--user", "ada", "--messages-table", "x"], "no table 'x'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments: list[str], said: str, source: str, refused: Callable[..., str]):
    line = refused("import", *(source if each == "SOURCE" else each for each in arguments))

    assert said in line
    assert "hunter2" not in line


@pytest.mark.parametrize(
    "arguments",
    [
        ["openai", "postgresql://a:hunter2@h/x", "--user", "ada", "postgresql://a:hunter2@h/x"],
        ["postgresql://a:hunter2@h/x"],
        ["openai", "postgresql://a:hunter2@h/x"],
    ],
)
def test_a_wrong_command_line_is_reported_without_the_url(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as left:
        main(["import", *arguments])

    shown = capsys.readouterr()
    assert left.value.code == 2
    assert "hunter2" not in shown.out + shown.err
    assert "--help" in shown.err


def test_importing_needs_no_framework_for_its_help(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["import", "langgraph", "--help"])

    assert "agent-service import langgraph sqlite:///checkpoints.db" in capsys.readouterr().out
