"""``db``, ``cleanup`` and ``stats`` on both engines."""

import asyncio
import os
import pty
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from agent_service.cli import main
from agent_service.core.settings import reset_settings
from agent_service.infrastructure.database import DatabaseManager, close_database, get_session
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from tests.cli.conftest import Command
from tests.database.earlier import make_earlier


@pytest.fixture(params=["sqlite", "postgres"])
def empty_database(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """DATABASE_URL of a database without tables, of each engine in turn."""
    if request.param == "sqlite":
        url = f"sqlite+aiosqlite:///{tmp_path / 'new.db'}"
    else:
        url = request.getfixturevalue("empty_postgres_url")
    monkeypatch.setenv("DATABASE_URL", url)
    reset_settings()
    return url


@pytest.fixture
def migrated_database(database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """DATABASE_URL of a database with our tables, of each engine in turn."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    reset_settings()
    return database_url


def store(*sessions: Session, tenant: str = "") -> None:
    async def run() -> None:
        try:
            async with get_session() as db:
                for each in sessions:
                    await SessionRepository(db, tenant).create(each)
        finally:
            await close_database()

    asyncio.run(run())


def test_upgrade_makes_the_tables_check_approves_and_downgrade_takes_them_away(empty_database: str, as_json: Command):
    before = as_json("db", "check", code=1)
    upgraded = as_json("db", "upgrade")
    after = as_json("db", "check")
    again = as_json("db", "upgrade")
    gone = as_json("db", "downgrade", "base", "--yes")

    assert (before["revision"], before["ok"]) == (None, False)
    assert before["differences"] != []
    assert upgraded["revision"] == after["revision"] == after["newest_revision"] == again["revision"]
    assert (after["ok"], after["differences"]) == (True, [])
    assert gone["revision"] is None
    assert as_json("db", "check", code=1)["ok"] is False


def test_a_dry_run_says_what_each_step_locks_and_changes_nothing(
    empty_database: str, as_json: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DB_TABLE_PREFIX", "x_")
    reset_settings()
    as_json("db", "upgrade", "2")

    planned, unchanged = as_json("db", "upgrade", "--dry-run"), as_json("db", "check", code=1)
    next_one = as_json("db", "upgrade", "+1", "--dry-run")
    assert main(["db", "upgrade", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    as_json("db", "upgrade")
    nothing = as_json("db", "upgrade", "--dry-run")

    column = next(step for step in planned["steps"] if step["words"] == "add the column watched_until")
    indexes = [step["others"] for step in planned["steps"] if "x_ix_sessions_deleted" in step["words"]]
    on_sqlite = planned["in_one_transaction"]
    assert (planned["revision"], planned["target_revision"]) == ("agent_service_0002", nothing["target_revision"])
    assert (column["revision"], next_one["target_revision"]) == ("agent_service_0003", "agent_service_0003")
    assert column["locks"] == ({} if on_sqlite else {"agent_service.x_sessions": "ACCESS EXCLUSIVE"})
    assert (column["others"], indexes) == (("read", ["read"]) if on_sqlite else ("wait", ["read and write"]))
    assert "agent_service_0003: Subscribers are told" in shown
    assert ("ACCESS EXCLUSIVE on agent_service.x_sessions" in shown) is not on_sqlite
    assert ("waits at most 0.8 s at a time" in shown) is not on_sqlite
    assert unchanged["revision"] == "agent_service_0002"
    assert nothing["steps"] == []


@pytest.mark.parametrize("revision", ["nonsense", "0000", "+99", "-1", ""])
def test_a_dry_run_to_a_revision_that_is_not_there_is_refused(empty_database: str, refused, revision: str):
    assert "revision" in refused("db", "upgrade", "--dry-run", revision)


def test_an_upgrade_says_its_steps_to_a_person_and_not_to_a_machine(
    empty_database: str, as_json: Command, capsys: pytest.CaptureFixture[str]
):
    assert main(["db", "upgrade"]) == 0
    told = capsys.readouterr().err
    as_json("db", "downgrade", "2", "--yes")
    as_json("db", "upgrade")

    assert ("agent_service_0003, step 1 of 3: add the column" in told) is empty_database.startswith("postgresql")


def test_an_unknown_revision_is_refused_and_changes_nothing(migrated_database: str, as_json: Command, refused):
    before = as_json("db", "check")

    line = refused("db", "downgrade", "nonsense", "--yes")

    assert "nonsense" in line
    assert as_json("db", "check")["revision"] == before["revision"]


@pytest.mark.parametrize("empty_database", ["postgres"], indirect=True)
def test_a_database_without_tables_is_refused_with_the_command_that_makes_them(empty_database: str, refused):
    assert "run: agent-service db upgrade" in refused("stats", "--user", "alice")
    assert "run: agent-service db upgrade" in refused("cleanup")


def test_cleanup_completes_what_has_expired_in_every_tenant(migrated_database: str, as_json: Command):
    past = datetime.now(UTC) - timedelta(hours=1)
    store(Session(user_id="alice", expires_at=past), Session(user_id="alice"))
    store(Session(user_id="alice", expires_at=past), tenant="acme")

    first, second = as_json("cleanup"), as_json("cleanup")

    nothing = dict.fromkeys(("completed_sessions", "expired_contexts", "expired_items"), 0)
    nothing |= dict.fromkeys(("purged_sessions", "purged_threads", "purged_conversations"), 0)
    assert first == nothing | {"completed_sessions": 2}
    assert second == nothing
    counted = as_json("stats", "--user", "alice")
    assert (counted["total_sessions"], counted["active_sessions"], counted["total_tokens"]) == (2, 1, 0)
    assert as_json("stats", "--user", "alice", "--tenant", "acme")["active_sessions"] == 0


def test_a_cleanup_removes_what_it_is_told_to(migrated_database: str, as_json: Command):
    session = Session(user_id="alice")
    store(session)

    async def delete() -> None:
        try:
            async with get_session() as db:
                await SessionRepository(db).delete(session.id)
        finally:
            await close_database()

    asyncio.run(delete())
    ages = ("--purge-after", "0s", "--purge-threads-after", "1d", "--purge-conversations-after", "2w")

    assert as_json("cleanup", "--purge-after", "1d")["purged_sessions"] == 0
    assert as_json("cleanup", *ages)["purged_sessions"] == 1


def test_stats_without_a_user_are_the_whole_tenants(migrated_database: str, as_json: Command):
    store(Session(user_id="alice"), Session(user_id="bob"))
    store(Session(user_id="carol"), tenant="acme")

    everybody, acme, alice = as_json("stats"), as_json("stats", "--tenant", "acme"), as_json("stats", "--user", "alice")

    assert [each["total_sessions"] for each in (everybody, acme, alice)] == [2, 1, 1]


def test_stats_of_an_empty_user_are_refused(migrated_database: str, as_json: Command, refused):
    assert "user_id" in refused("stats", "--user", "")


SURPLUS = "drop what the package does not know, or keep it in a table of your own"
MISSING = "put back by hand what is missing or was changed, as the migrations made it"


@pytest.mark.parametrize(
    ("statements", "named", "remedy"),
    [
        (["ALTER TABLE {} ADD COLUMN surplus TEXT"], "surplus", f"no upgrade helps: {SURPLUS}"),
        (["CREATE INDEX surplus ON {} (title)"], "surplus", f"no upgrade helps: {SURPLUS}"),
        (["ALTER TABLE {} DROP COLUMN watched_until"], "watched_until", f"no upgrade helps: {MISSING}"),
        (
            ["ALTER TABLE {} ADD COLUMN surplus TEXT", "ALTER TABLE {} DROP COLUMN watched_until"],
            "watched_until",
            f"no upgrade helps: {SURPLUS}; {MISSING}",
        ),
    ],
)
def test_check_tells_a_person_what_differs_and_what_to_do(
    sqlite_url: str, monkeypatch, capsys, statements, named, remedy
):
    monkeypatch.setenv("DATABASE_URL", sqlite_url)
    with sqlite3.connect(sqlite_url.partition("///")[2]) as connection:
        for statement in statements:
            connection.execute(statement.format(Session.__tablename__))
    connection.close()

    assert main(["db", "check"]) == 1

    shown = capsys.readouterr().out
    assert named in shown
    assert "db upgrade" not in shown
    assert shown.endswith(f"{remedy}\n")


def test_check_of_an_old_or_a_too_new_database_says_what_to_do(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("DATABASE_URL", f"sqlite+aiosqlite:///{tmp_path / 'new.db'}")
    assert main(["db", "upgrade"]) == 0
    assert main(["db", "downgrade", "-1", "--yes"]) == 0
    assert main(["db", "check"]) == 1
    old = capsys.readouterr().out
    assert main(["db", "upgrade"]) == 0
    with sqlite3.connect(tmp_path / "new.db") as connection:
        (table,) = connection.execute("SELECT name FROM sqlite_master WHERE name LIKE '%_version'").fetchone()
        connection.execute(f"UPDATE {table} SET version_num = 'later'")
    connection.close()
    assert main(["db", "check"]) == 1
    new = capsys.readouterr().out

    assert old.endswith("run: agent-service db upgrade\n")
    assert new.endswith("install that version, no upgrade helps\n")


def test_a_database_that_is_not_there_is_one_line_with_a_remedy_and_without_the_password(monkeypatch, refused):
    monkeypatch.setenv("DATABASE_URL", "postgresql+asyncpg://me:s3cret@127.0.0.1:9/none")

    for command in (["db", "check"], ["db", "upgrade"], ["cleanup"], ["stats", "--user", "alice"]):
        line = refused(*command)

        assert "check DATABASE_URL" in line
        assert "s3cret" not in line


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_row_level_security_is_put_in_force_and_out_again(migrated_database: str, as_json: Command):
    on = as_json("db", "enable-rls", "--yes")
    checked = as_json("db", "check")
    off = as_json("db", "disable-rls")

    assert (on["row_security"], off["row_security"]) == (True, False)
    assert on["role"]
    assert checked["ok"]


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_row_level_security_that_would_hide_rows_is_refused_unless_somebody_insists(
    migrated_database: str, as_json: Command, refused, monkeypatch: pytest.MonkeyPatch
):
    store(Session(user_id="alice"))

    not_set_here = refused("db", "enable-rls")
    monkeypatch.setenv("DB_ROW_SECURITY", "true")
    reset_settings()
    with a_service(migrated_database, ""):
        some_service = refused("db", "enable-rls")
        insisted = as_json("db", "enable-rls", "--yes")
        as_json("db", "disable-rls")
    with a_service(migrated_database, "?application_name=shop"):
        unknown_service = refused("db", "enable-rls")
    with a_service(migrated_database, "", row_security=True):
        told_service = as_json("db", "enable-rls")

    assert "First set DB_ROW_SECURITY=true for every process" in not_set_here
    assert "It is not set here. None such is connected now." in not_set_here
    assert "--yes" in not_set_here
    assert "1 of role 'bound_role' with application_name 'agent_service' (does not say its tenants)" in some_service
    assert "1 of role 'bound_role' with application_name 'shop' (may not say its tenants)" in unknown_service
    assert (insisted["row_security"], told_service["row_security"]) == (True, True)


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("\n", 2)])
@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_on_a_terminal_it_asks(migrated_database: str, answer: str, code: int):
    leader, follower = pty.openpty()
    os.write(leader, answer.encode())
    environment = {**os.environ, "DATABASE_URL": migrated_database}
    command = [sys.executable, "-m", "agent_service", "db", "enable-rls"]

    done = subprocess.run(command, stdin=follower, env=environment, capture_output=True, text=True, check=False)
    os.close(leader)
    os.close(follower)

    assert done.returncode == code
    assert "hides every row from processes that do not say their tenants" in done.stderr
    assert "Put the policies in force now? [y/N]" in done.stderr
    assert ("row security                true" in done.stdout) is (code == 0)


@contextmanager
def a_service(url: str, options: str, *, row_security: bool = False) -> Iterator[None]:
    """A service that is connected, as a role that policies bind."""
    opened, closing = threading.Event(), threading.Event()

    async def serve() -> None:
        owner = DatabaseManager(url)
        async with owner.session() as db:
            await db.execute(text("CREATE ROLE bound_role LOGIN"))
            await db.execute(text("GRANT USAGE ON SCHEMA agent_service TO bound_role"))
            await db.execute(text("GRANT SELECT ON ALL TABLES IN SCHEMA agent_service TO bound_role"))
        service = DatabaseManager(url.replace("postgres@", "bound_role@") + options, row_security=row_security)
        async with service.session() as db:
            await SessionRepository(db).get_user_sessions("alice")
        opened.set()
        await asyncio.to_thread(closing.wait)
        await service.close()
        async with owner.session() as db:
            await db.execute(text("DROP OWNED BY bound_role"))
            await db.execute(text("DROP ROLE bound_role"))
        await owner.close()

    with ThreadPoolExecutor(1) as thread:
        served = thread.submit(asyncio.run, serve())
        while not opened.wait(0.01):
            assert not served.done(), served.exception()
        try:
            yield
        finally:
            closing.set()
            served.result()


def test_row_level_security_of_a_database_that_has_none_is_refused(empty_database: str, refused):
    assert "upgrade" in (message := refused("db", "enable-rls")) or "SQLite has none" in message


def test_tables_of_an_earlier_version_are_taken_over_and_given_back_by_its_own_number(
    empty_database: str, as_json: Command
):
    make_earlier(empty_database)
    before = as_json("db", "check", code=1)
    upgraded = as_json("db", "upgrade")
    after = as_json("db", "check")
    given_back = as_json("db", "downgrade", "0007", "--yes")

    assert (before["revision"], before["ok"]) == ("agent_service_0007", False)
    later = (
        "tenant_id",
        "index",
        "foreign key",
        "fleet",
        "checkpoint",
        "truncations",
        "expires_at",
        "store_",
        "conversation",
    )
    assert all(any(part in each for part in later) for each in before["differences"])
    assert upgraded["revision"] == after["newest_revision"]
    assert after["ok"] is True
    assert given_back["revision"] == "agent_service_0007"
    assert as_json("stats", "--user", "ada", "--tenant", "acme")["total_messages"] == 3
