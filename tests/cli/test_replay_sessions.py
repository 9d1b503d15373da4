"""Replaying conversations: stored through the repository, read back, compared as JSON, on both engines."""

import asyncio
import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent_service.cli import main
from agent_service.cli.replaying import TENANT, SessionsReport, replay_sessions
from agent_service.cli.sample import write_conversations
from agent_service.core.settings import reset_settings
from agent_service.infrastructure.database import close_database, get_session
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from tests.cli.conftest import Command, GzipWriter, conversation_lines


@pytest.fixture(autouse=True)
def configured(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """DATABASE_URL, of each engine in turn."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    reset_settings()


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    path = tmp_path / "sample.jsonl.gz"
    write_conversations(path, conversations=12)
    return path


def stored(external_id: str) -> Session | None:
    """Read a replayed conversation, by a road of our own."""

    async def read() -> Session | None:
        try:
            async with get_session() as db:
                repo = SessionRepository(db, TENANT)
                found = await repo.get_by_external_id(external_id)
                return await repo.get_session_with_messages(found.id) if found else None
        finally:
            await close_database()

    return asyncio.run(read())


def messages_of(path: Path) -> int:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return sum(len(json.loads(line)["messages"]) for line in file)


@pytest.mark.parametrize("workers", [1, 8])
def test_every_conversation_comes_back_as_it_was_given(workers: int, sample: Path, as_json: Command):
    found = as_json("replay", "--sessions", sample, "--workers", workers)

    assert (found["conversations"], found["messages"], found["mismatches"]) == (12, messages_of(sample), 0)
    assert set(found) == {"conversations", "messages", "mismatches", "seconds"}


def test_a_conversation_is_one_session_with_the_files_own_words(write_gzip: GzipWriter, as_json: Command):
    odd = {"role": "tool", "content": "\x00 é 😀", "z": 1e22, "a": [1.0, None, {"b": ""}]}
    conversation = {
        "session_id": "odd-1", "source": "test", "agent": None, "meta": {"reward": 0.0},
        "messages": [{"role": "user", "content": "Where is\nÖrebro?"}, odd],
    }  # fmt: skip

    as_json("replay", "--sessions", write_gzip("odd.jsonl.gz", conversation_lines([conversation])), "--keep")

    session = stored("odd-1")
    assert session is not None
    assert (session.title, session.agent_id) == ("Where is Örebro?", None)
    assert session.session_metadata == {"source": "test", "agent": None, "meta": {"reward": 0.0}}
    assert json.dumps([each.to_dict() for each in session.messages]) == json.dumps(conversation["messages"])


def test_a_second_replay_adds_nothing(sample: Path, as_json: Command):
    first = as_json("replay", "--sessions", sample, "--keep")
    second = as_json("replay", "--sessions", sample, sample)

    counted = as_json("stats", "--user", "replay", "--tenant", "replay")

    assert (first["conversations"], second["conversations"], second["mismatches"]) == (12, 24, 0)
    assert (counted["total_sessions"], counted["total_messages"]) == (12, first["messages"])
    assert counted["avg_messages_per_session"] == first["messages"] / 12


def test_what_a_replay_stored_is_removed_again_after_an_error_too(
    sample: Path, write_gzip: GzipWriter, as_json: Command, refused: Callable[..., str]
):
    bad = write_gzip("bad.jsonl.gz", conversation_lines([{"session_id": "good", "messages": []}]) + "[]\n")

    as_json("replay", "--sessions", sample)
    refused("replay", "--sessions", bad)

    assert as_json("stats", "--user", "replay", "--tenant", "replay")["total_sessions"] == 0
    assert stored("good") is None


def test_progress_is_what_was_compared_not_what_was_read(sample: Path):
    seen: list[float] = []

    async def replay() -> None:
        try:
            await replay_sessions([sample, sample], 1, seen.append, SessionsReport())
        finally:
            await close_database()

    asyncio.run(replay())

    assert len(seen) == 24
    assert seen == sorted(seen)
    assert 0 < seen[0] < 0.25
    assert seen[11] == 0.5
    assert seen[-1] == 1.0


def test_a_person_reads_the_counts_then_statistics_a_search_and_a_page(
    sample: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["replay", "--sessions", str(sample)]) == 0

    shown = capsys.readouterr()
    assert "mismatches                  0\n" in shown.out
    assert "12 sessions with " in shown.out
    assert "A search for " in shown.out
    assert "Page 1 of 3, most recent first:\n" in shown.out
    assert shown.out.count(" messages  ") > 5  # of the search and of the page
    assert "\x00" not in shown.out
    assert shown.err == "Storing and comparing sample.jsonl.gz ...\n"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"session_id": "x", "messages": [', "line 2: not JSON"),
        ("[" * 100_000, "line 2: not JSON"),
        ("[]", "line 2: not a conversation"),
        ('{"session_id": 7, "messages": []}', "line 2: not a conversation"),
        ('{"session_id": "", "messages": []}', "line 2: not a conversation"),
        ('{"session_id": "x", "messages": {}}', "line 2: not a conversation"),
        ('{"session_id": "x", "messages": ["hello"]}', "line 2: not a conversation"),
        ('{"session_id": "x", "messages": [{"content": "no role"}]}', "line 2: message"),
        ('{"session_id": "x", "messages": [{"role": "user", "content": NaN}]}', "line 2: message"),
        ('{"session_id": "x", "messages": [{"role": "user", "content": "\\ud800"}]}', "line 2: message"),
        ('{"session_id": "\\u0000", "messages": []}', "line 2: external_id"),
    ],
)
def test_a_line_that_is_no_conversation_is_refused_and_those_before_it_are_kept(
    line: str, complaint: str, write_gzip: GzipWriter, refused: Callable[..., str]
):
    good = conversation_lines([{"session_id": "good", "messages": [{"role": "user", "content": "Hi"}]}])
    path = write_gzip("bad.jsonl.gz", f"{good}{line}\n")

    shown = refused("replay", "--sessions", path, "--workers", 1, "--keep")

    assert f"{path}: {complaint}" in shown
    assert stored("good") is not None
    assert stored("x") is None


@pytest.mark.skipif("AGENT_SERVICE_DATA" not in os.environ, reason="AGENT_SERVICE_DATA names no folder of real data")
@pytest.mark.timeout(600)
def test_the_real_conversations_come_back_as_they_were_given(as_json: Command):
    files = sorted(Path(os.environ["AGENT_SERVICE_DATA"], "sessions").glob("*.jsonl.gz"))

    found = as_json("replay", "--sessions", *files, "--workers", 8, "--keep")
    again = as_json("replay", "--sessions", *files, "--workers", 8)
    counted = as_json("stats", "--user", "replay", "--tenant", "replay")

    for each in (found, again):
        assert (each["conversations"], each["messages"], each["mismatches"]) == (2863, 55_303, 0)
    assert (counted["total_sessions"], counted["total_messages"]) == (2863, 55_303)
