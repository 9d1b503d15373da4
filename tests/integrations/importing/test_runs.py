"""Runs that end early, are repeated, or race; and what a run tells."""

import asyncio
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from agent_service.core.errors import ConfigurationError, DatabaseError, SessionValueError
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.integrations.importing import ImportReport, ImportStoppedError, Options, import_openai
from agent_service.integrations.openai_agents import DatabaseSession
from tests.integrations.importing.filled import execute, fill_openai, openai_items, rows_of_many, turn

IMPORTER = Path(__file__).parent / "importer.py"


async def same_as_the_source(target: DatabaseManager, source: str, session_ids: list[str]) -> None:
    found = {each: await DatabaseSession(each, user_id="ada", database=target).get_items() for each in session_ids}
    assert found == await openai_items(source, session_ids)


async def sessions_in(target: DatabaseManager) -> int:
    async with target.session() as db:
        return (await SessionRepository(db).get_session_stats("ada")).total_sessions


async def killed_on_its_way(source: str, target: str, *, pages: int) -> int:
    """Kill an import after some pages; return how many conversations its last line said to be done."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(IMPORTER), source, target, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    done = 0
    for _ in range(pages):
        done = int(await process.stdout.readline())
    process.kill()
    await process.communicate()
    assert process.returncode == -signal.SIGKILL
    return done


async def kill_and_resume(
    target: DatabaseManager, url: str, source: str, conversations: int, *, pages: int
) -> ImportReport:
    done = await killed_on_its_way(source, url, pages=pages)
    stored = await sessions_in(target)
    assert done <= stored < conversations

    report = await import_openai(source, user_id="ada", options=Options(database=target))
    again = await import_openai(source, user_id="ada", options=Options(database=target))

    # What was done before the last page that was saved is not read again.
    assert done <= report.earlier <= stored
    assert report.earlier + report.conversations == conversations
    assert report.unchanged == stored - report.earlier <= 50
    assert report.problems.count == 0
    assert (again.earlier, again.unchanged, again.changed) == (0, conversations, False)
    return report


async def test_a_run_of_200_conversations_that_is_killed_goes_on_where_it_was(
    target: DatabaseManager, database_url: str, source_url: str
):
    await rows_of_many(source_url, 199, 3)

    await kill_and_resume(target, database_url, source_url, 200, pages=2)

    await same_as_the_source(target, source_url, ["made", *(f"chat {n:06}" for n in range(0, 199, 7))])


@pytest.mark.faults
@pytest.mark.timeout(1800)
async def test_a_run_of_10_000_conversations_that_is_killed_goes_on_where_it_was(
    target: DatabaseManager, database_url: str, source_url: str
):
    await rows_of_many(source_url, 9_999, 4)

    report = await kill_and_resume(target, database_url, source_url, 10_000, pages=100)

    assert report.earlier >= 4_900
    await same_as_the_source(target, source_url, ["made", *(f"chat {n:06}" for n in range(9_999))])


async def test_runs_at_once_store_each_conversation_once(target: DatabaseManager, source_url: str):
    await rows_of_many(source_url, 59, 3)

    reports = await asyncio.gather(
        *(import_openai(source_url, user_id="ada", options=Options(database=target)) for _ in range(3))
    )

    assert sum(report.added for report in reports) == 60
    assert sum(report.items_added for report in reports) == 59 * 3 + 1
    assert {report.conversations for report in reports} == {60}
    await same_as_the_source(target, source_url, ["made", *(f"chat {n:06}" for n in range(59))])


async def test_a_dry_run_says_what_a_run_would_do_and_changes_nothing(target: DatabaseManager, source_url: str):
    await fill_openai(source_url, {"a": turn(1), "b": turn(1)})
    await import_openai(source_url, user_id="ada", options=Options(database=target))
    await fill_openai(source_url, {"b": turn(2), "c": turn(1)})

    told: list[float] = []
    options = Options(database=target, dry_run=True, progress=lambda report: told.append(report.fraction))
    dry = await import_openai(source_url, user_id="ada", options=options)
    assert await sessions_in(target) == 2
    wet = await import_openai(source_url, user_id="ada", options=Options(database=target))

    counts = ("total", "added", "extended", "unchanged", "items", "items_added")
    assert [getattr(dry, name) for name in counts] == [getattr(wet, name) for name in counts] == [3, 1, 1, 1, 20, 10]
    assert dry.dry_run
    assert told[-1] == 1.0


async def test_a_dry_run_says_what_a_run_would_refuse(target: DatabaseManager, source_file: str):
    await fill_openai(source_file, {"a": turn(1)})
    async with target.session() as db:
        repo = SessionRepository(db)
        hidden = await repo.get_or_create("a", user_id="ada")
        await repo.delete(hidden.id)

    for dry_run in (True, False):
        options = Options(database=target, on_problem="skip", dry_run=dry_run)
        report = await import_openai(source_file, user_id="ada", options=options)
        assert (report.added, report.skipped) == (0, 1)
        assert "was deleted" in report.problems.first[0].reason


async def test_what_an_interrupted_run_skipped_is_not_forgotten(target: DatabaseManager, source_url: str):
    await rows_of_many(source_url, 119, 1)
    broken = "UPDATE agent_messages SET message_data = '{' WHERE session_id IN ('chat 000003', 'chat 000100')"
    await execute(source_url, broken)
    pages = 0

    def interrupt(_report: ImportReport) -> None:
        nonlocal pages
        pages += 1
        if pages == 2:
            raise KeyError

    options = Options(database=target, on_problem="skip", progress=interrupt)
    with pytest.raises(KeyError):
        await import_openai(source_url, user_id="ada", options=options)
    report = await import_openai(source_url, user_id="ada", options=options)
    again = await import_openai(source_url, user_id="ada", options=options)

    assert (report.earlier, report.problems.count, report.items_skipped) == (100, 2, 1)
    assert report.problems.first == again.problems.first
    assert (again.earlier, again.problems.count, again.items_skipped) == (0, 2, 2)


async def test_a_run_that_stopped_goes_on_at_the_conversation_that_was_mended(target: DatabaseManager, source_url: str):
    await rows_of_many(source_url, 9, 2)
    last = "SELECT max(id) FROM agent_messages WHERE session_id = 'chat 000004'"
    broken = f"UPDATE agent_messages SET message_data = :data WHERE id = ({last})"
    await execute(source_url, broken, data="{no json")

    with pytest.raises(
        ImportStoppedError, match=r"session 'chat 000004', agent_messages id \d+: .* is no JSON"
    ) as stopped:
        await import_openai(source_url, user_id="ada", options=Options(database=target))
    # Nothing of it was written, not even the item before.
    assert await sessions_in(target) == 4
    assert (stopped.value.report.added, stopped.value.report.total) == (4, 10)
    await execute(source_url, broken, data='{"role": "user", "content": "mended"}')
    report = await import_openai(source_url, user_id="ada", options=Options(database=target))

    assert (report.earlier, report.added, report.unchanged) == (4, 6, 0)
    restarted = await import_openai(source_url, user_id="ada", options=Options(database=target, restart=True))
    assert (restarted.earlier, restarted.unchanged) == (0, 10)


async def test_restart_reads_again_what_an_interrupted_run_had_done(target: DatabaseManager, source_file: str):
    await rows_of_many(source_file, 4, 1)
    await execute(source_file, "UPDATE agent_messages SET message_data = '1' WHERE session_id = 'chat 000003'")
    with pytest.raises(ImportStoppedError):
        await import_openai(source_file, user_id="ada", options=Options(database=target))

    with pytest.raises(ImportStoppedError) as stopped:
        await import_openai(source_file, user_id="ada", options=Options(database=target, restart=True))

    assert (stopped.value.report.earlier, stopped.value.report.unchanged) == (0, 3)


async def test_what_the_target_holds_otherwise_is_a_problem_and_left_as_it_is(
    target: DatabaseManager, source_file: str
):
    await fill_openai(source_file, {"a": turn(1), "b": turn(1), "c": turn(1)})
    await DatabaseSession("a", user_id="ada", database=target).add_items([{"role": "user", "content": "other"}])
    await DatabaseSession("b", user_id="bob", database=target).add_items([turn(1)[0]])  # type: ignore[list-item]
    async with target.session() as db:
        repo = SessionRepository(db)
        hidden = await repo.get_or_create("c", user_id="ada")
        await repo.delete(hidden.id)

    report = await import_openai(source_file, user_id="ada", options=Options(database=target, on_problem="skip"))

    assert (report.skipped, report.added, report.changed) == (3, 0, False)
    first, second, third = map(str, report.problems.first)
    assert "session 'a', agent_messages id 1: the target holds another item in its place (number 1" in first
    assert "session 'b': the target has a session of its external id that belongs to another user" in second
    assert "session 'c': session" in third
    assert "was deleted" in third
    assert len(await DatabaseSession("a", user_id="ada", database=target).get_items()) == 1


async def test_a_target_that_changes_a_value_is_noticed_and_nothing_is_kept(target: DatabaseManager, source_file: str):
    await fill_openai(source_file, {"a": turn(1)})
    async with target.session() as db:
        if db.get_bind().dialect.name == "sqlite":
            await db.execute(text(_LOSSY_SQLITE))
        else:
            function, trigger = _LOSSY_POSTGRES.split("$$;")
            await db.execute(text(f"{function}$$"))
            await db.execute(text(trigger))

    with pytest.raises(ImportStoppedError, match="item 4 read back from the target is not the source's"):
        await import_openai(source_file, user_id="ada", options=Options(database=target))

    assert await sessions_in(target) == 0


_CHANGED = '{"output"\\: "16\\:06"}'
_LOSSY_SQLITE = f"""
CREATE TRIGGER lossy AFTER INSERT ON agent_service_session_messages WHEN NEW.seq = 4 BEGIN
    UPDATE agent_service_session_messages SET data = '{_CHANGED}' WHERE seq = 4;
END
"""
_LOSSY_POSTGRES = f"""
CREATE FUNCTION lossy() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN NEW.data = '{_CHANGED}'; RETURN NEW; END $$;
CREATE TRIGGER lossy BEFORE INSERT ON agent_service_session_messages FOR EACH ROW WHEN (NEW.seq = 4)
EXECUTE FUNCTION lossy()
"""


@pytest.fixture
def read_only_file(source_file: str) -> Iterator[Callable[[], bytes]]:
    """Makes the source a file that may only be read, in a mode in which readers write nothing, and returns it."""
    path = Path(source_file.partition("///")[2])

    def make() -> bytes:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")
        path.chmod(0o400)
        assert [each.name for each in path.parent.iterdir() if each.name.startswith("source")] == ["source.db"]
        return path.read_bytes()

    yield make
    assert [each.name for each in path.parent.iterdir() if each.name.startswith("source")] == ["source.db"]


async def test_a_source_is_never_written_to(
    target: DatabaseManager, source_file: str, read_only_file: Callable[[], bytes]
):
    await fill_openai(source_file, {"a": turn(1)})
    before = read_only_file()

    await import_openai(source_file, user_id="ada", options=Options(database=target))

    assert read_only_file() == before


async def test_options_that_cannot_be_used_are_refused(target: DatabaseManager):
    with pytest.raises(ConfigurationError, match='on_problem must be "stop" or "skip"'):
        Options(database=target, on_problem="ignore")  # type: ignore[arg-type]
    with pytest.raises(SessionValueError, match="tenant_id"):
        Options(database=target, tenant_id="x" * 256)


@pytest.mark.parametrize(
    "url",
    [
        "mysql+aiomysql://u:hidden@h/x",
        "hidden",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:////no/such/file",
        "postgresql://u:hidden@h/x?no=1",
        7,
    ],
)
async def test_sources_that_cannot_be_used_are_refused_without_showing_a_password(target: DatabaseManager, url: str):
    with pytest.raises(ConfigurationError) as refused:
        await import_openai(url, user_id="ada", options=Options(database=target))

    assert "hidden" not in str(refused.value)


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    """A file that is no database."""
    path = tmp_path / "text.db"
    path.write_text("no database, but long enough to be looked at" * 100)
    return path


async def test_a_source_that_cannot_be_reached_or_is_no_database_is_an_error_of_ours(
    target: DatabaseManager, text_file: Path
):
    for url in ("postgresql://u:hidden@127.0.0.1:1/x", f"sqlite:///{text_file}"):
        with pytest.raises(DatabaseError) as refused:
            await import_openai(url, user_id="ada", options=Options(database=target))
        assert "hidden" not in str(refused.value)
