"""Conversations at the command line: listed, shown, searched, moved, removed, on both engines."""

import asyncio
import gzip
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text

from agent_service.cli import main
from agent_service.core.settings import reset_settings
from agent_service.infrastructure.database import close_database, get_session
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from tests.cli.conftest import Command

TENANT = "acme"
_SPOIL = text("UPDATE agent_service_sessions SET total_messages = 9 WHERE external_id = :external_id")


@pytest.fixture(autouse=True)
def sessions(database_url: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of three sessions of ann, the first without messages, and of one of bob."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    reset_settings()

    async def store() -> list[str]:
        try:
            async with get_session() as db:
                repo = SessionRepository(db, TENANT)
                made = []
                for number in range(3):
                    session = await repo.create(
                        Session(
                            user_id="ann",
                            external_id=f"chat/{number}",
                            title=f"Chat \x1b[31m{number}",
                            context={"a": 1},
                        )
                    )
                    for seq in range(number):
                        await repo.add_message_to_session(
                            session.id, {"role": "user", "content": f"A train to Bergen\n{seq}"}
                        )
                    made.append(str(session.id))
                bob = await repo.create(Session(user_id="bob", title="Bob's"))
                return [*made, str(bob.id)]
        finally:
            await close_database()

    return asyncio.run(store())


def test_a_user_s_sessions_are_listed_page_by_page(sessions: list[str], as_json: Command):
    first = as_json("sessions", "list", "--user", "ann", "--tenant", TENANT, "--limit", 2)
    second = as_json(
        *("sessions", "list", "--user", "ann", "--tenant", TENANT, "--limit", 2, "--cursor", first["next_cursor"])
    )

    assert [each["id"] for each in first["sessions"] + second["sessions"]] == sessions[2::-1]
    assert [each["total_messages"] for each in first["sessions"]] == [2, 1]
    assert second["next_cursor"] is None
    assert as_json("sessions", "list", "--user", "ann") == {"sessions": [], "next_cursor": None}


def test_a_session_is_shown_by_either_id_with_its_last_messages(sessions: list[str], as_json: Command, capsys):
    by_id = as_json("sessions", "show", sessions[2], "--tenant", TENANT)
    by_external_id = as_json("sessions", "show", "chat/2", "--tenant", TENANT, "--limit", 1)

    assert by_id["external_id"] == "chat/2"
    assert by_id["context"] == {"a": 1}
    assert [(each["seq"], each["message"]["content"]) for each in by_id["messages"]] == [
        (1, "A train to Bergen\n0"),
        (2, "A train to Bergen\n1"),
    ]
    assert [each["seq"] for each in by_external_id["messages"]] == [2]

    assert main(["sessions", "show", "chat/2", "--tenant", TENANT]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert shown.splitlines()[-1] == "     2  user        A train to Bergen 1"


def test_a_session_that_is_not_there_is_named_with_the_tenant(refused: Callable[..., str]):
    assert "no session 'chat/9' in the tenant 'acme'" in refused("sessions", "show", "chat/9", "--tenant", TENANT)
    assert "no session 'chat/1' in the tenant ''" in refused("sessions", "show", "chat/1")


def test_messages_are_found(sessions: list[str], as_json: Command):
    found = as_json("sessions", "search", "bergen", "--user", "ann", "--tenant", TENANT)["hits"]

    assert {(each["session"], each["seq"]) for each in found} == {(sessions[1], 1), (sessions[2], 1), (sessions[2], 2)}
    assert all("**Bergen**" in each["snippet"] for each in found)


@pytest.mark.parametrize("name", ["ann.jsonl", "ann.jsonl.gz"])
def test_what_is_exported_can_be_erased_and_imported_again(
    name: str, sessions: list[str], tmp_path: Path, as_json: Command, capsys
):
    path = tmp_path / name
    before = as_json("sessions", "show", sessions[2], "--tenant", TENANT)

    assert main(["sessions", "export", "--user", "ann", "--tenant", TENANT, "--output", str(path)]) == 0
    assert capsys.readouterr().err == f"6 lines written to {path}\n"
    assert [each.name for each in tmp_path.iterdir() if "unfinished" in each.name] == []
    lines = (gzip.decompress(path.read_bytes()) if name.endswith("gz") else path.read_bytes()).splitlines()
    assert len(lines) == 6
    assert main(["sessions", "export", "--user", "ann", "--tenant", TENANT]) == 0
    assert capsys.readouterr().out.encode().splitlines() == lines

    assert as_json("sessions", "erase", "--user", "ann", "--tenant", TENANT, "--yes") == {"erased_sessions": 3}
    assert as_json("sessions", "import", path, "--tenant", TENANT) == {"sessions": 3, "messages": 3, "skipped": 0}
    assert as_json("sessions", "import", path, "--tenant", TENANT) == {"sessions": 0, "messages": 0, "skipped": 3}
    assert as_json("sessions", "show", sessions[2], "--tenant", TENANT) == before


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path, capsys):
    target = tmp_path / "folder"
    target.mkdir()

    assert main(["sessions", "export", "--user", "ann", "--output", str(target)]) == 2

    assert f"{target}: cannot be written (Is a directory)" in capsys.readouterr().err
    assert list(tmp_path.glob("*.unfinished")) == []


def test_what_is_no_file_of_its_own_is_written_to_and_not_replaced(tmp_path: Path):
    target, link, pipe = tmp_path / "ann.jsonl", tmp_path / "link", tmp_path / "pipe"
    target.write_text("old")
    link.symlink_to(target)
    os.mkfifo(pipe)
    export = ("sessions", "export", "--user", "ann", "--tenant", TENANT, "--output")

    assert main([*export, str(link)]) == 0
    with ThreadPoolExecutor(1) as reader:
        read = reader.submit(pipe.read_text, "utf-8")
        assert main([*export, str(pipe)]) == 0
        assert read.result() == target.read_text("utf-8")

    assert link.is_symlink()
    assert pipe.is_fifo()
    assert len(target.read_text("utf-8").splitlines()) > 3
    assert list(tmp_path.glob("*.unfinished")) == []
    assert main([*export, "/"]) == 2


def test_an_export_is_utf_8_whatever_the_terminal_knows(tmp_path: Path, as_json: Command):
    async def store() -> None:
        try:
            async with get_session() as db:
                await SessionRepository(db, TENANT).create(Session(user_id="cai", title="Größe 😀"))
        finally:
            await close_database()

    asyncio.run(store())
    path = tmp_path / "cai.jsonl"
    command = [sys.executable, "-m", "agent_service", "sessions", "export", "--user", "cai", "--tenant", TENANT]

    with path.open("wb") as file:
        subprocess.run(command, env={**os.environ, "PYTHONIOENCODING": "latin-1"}, stdout=file, check=True)

    assert as_json("sessions", "import", path, "--tenant", "other")["sessions"] == 1
    (listed,) = as_json("sessions", "list", "--user", "cai", "--tenant", "other")["sessions"]
    assert listed["title"] == "Größe 😀"


def test_erasing_needs_a_yes(refused: Callable[..., str], as_json: Command):
    assert "the user 'ann' in the tenant 'acme'" in refused("sessions", "erase", "--user", "ann", "--tenant", TENANT)
    assert as_json("stats", "--user", "ann", "--tenant", TENANT)["total_sessions"] == 3


def test_a_line_that_cannot_be_imported_leaves_nothing(tmp_path: Path, refused: Callable[..., str], as_json: Command):
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{}\n")

    assert "line 1" in refused("sessions", "import", bad)
    assert as_json("stats", "--tenant", "")["total_sessions"] == 0


def test_what_was_deleted_some_time_ago_is_purged(sessions: list[str], as_json: Command):
    async def delete() -> None:
        try:
            async with get_session() as db:
                await SessionRepository(db, TENANT).delete(sessions[0])
        finally:
            await close_database()

    asyncio.run(delete())

    assert as_json("sessions", "purge", "--older-than", "1d", "--tenant", TENANT) == {"purged_sessions": 0}
    assert as_json("sessions", "purge", "--older-than", "0s", "--tenant", TENANT) == {"purged_sessions": 1}


def test_a_counter_that_is_right_is_left(sessions: list[str], as_json: Command):
    assert as_json("sessions", "recount", "--tenant", TENANT) == {"corrected_sessions": []}
    assert as_json("sessions", "recount", sessions[1], "--tenant", TENANT) == {"corrected_sessions": []}


def test_a_counter_that_is_wrong_is_corrected_and_shown(sessions: list[str], as_json: Command):
    async def spoil() -> None:
        try:
            async with get_session() as db:
                await db.execute(_SPOIL, {"external_id": "chat/2"})
        finally:
            await close_database()

    asyncio.run(spoil())

    (found,) = as_json("sessions", "recount", "--tenant", TENANT, code=1)["corrected_sessions"]
    assert (found["session"], found["total_messages"], found["counted_messages"]) == (sessions[2], 9, 2)
    assert as_json("sessions", "show", sessions[2], "--tenant", TENANT)["total_messages"] == 2


@pytest.mark.parametrize("given", ["30", "d", "-1d", "1y", "1.5h", ""])
def test_a_duration_that_is_none_is_refused(given: str, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["sessions", "purge", f"--older-than={given}"])

    assert exit_.value.code == 2
    assert "is not a duration such as 90s, 15m, 12h, 30d or 2w" in capsys.readouterr().err
