"""All of a user goes, in statements of bounded work, resumably, and out of SQLite's file. On both engines."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, text

from agent_service.core.errors import DatabaseError, SessionValueError
from agent_service.infrastructure.database import erase_user, rewrite_file
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.maintenance import index_messages
from agent_service.infrastructure.database.maintenance.removal import STEP
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository

MANY = 2 * STEP + 10


async def fill(database: DatabaseManager, user: str, *sizes: int, content: str = "words") -> list[UUID]:
    async with database.session() as db:
        repo = SessionRepository(db)
        ids = []
        for size in sizes:
            session = await repo.create(Session(user_id=user, title=content, context={"a": content}))
            messages = [{"role": "user", "content": f"{content} {number}"} for number in range(size)]
            await repo.add_messages_to_session(session.id, messages)
            ids.append(session.id)
    return ids


async def count(database: DatabaseManager) -> tuple[int, int]:
    async with database.session() as db:
        return (
            int(await db.scalar(text("SELECT count(*) FROM agent_service_sessions")) or 0),
            int(await db.scalar(text("SELECT count(*) FROM agent_service_session_messages")) or 0),
        )


async def erase_in_steps(database: DatabaseManager, user: str) -> int:
    return await erase_user(database, user)


async def erase_at_once(database: DatabaseManager, user: str) -> int:
    async with database.session() as db:
        return await SessionRepository(db).erase_user(user)


EITHER = pytest.mark.parametrize("erase", [erase_in_steps, erase_at_once], ids=["in steps", "at once"])
Erase = Callable[[DatabaseManager, str], Awaitable[int]]


def rows_of_statements(database: DatabaseManager) -> list[int]:
    changed: list[int] = []
    event.listen(
        database.engine.sync_engine,
        "after_cursor_execute",
        lambda _connection, cursor, statement, *_: (
            changed.append(cursor.rowcount) if statement.lstrip().startswith(("DELETE", "INSERT", "UPDATE")) else None
        ),
    )
    return changed


@EITHER
async def test_everything_of_a_user_goes_in_statements_of_bounded_work(database: DatabaseManager, erase: Erase) -> None:
    await fill(database, "ada", MANY, 3, 700, 700, 0)
    await fill(database, "bob", 4)
    changed = rows_of_statements(database)

    assert await erase(database, "ada") == 5
    assert await erase(database, "ada") == 0
    assert await count(database) == (1, 4)
    assert max(changed) <= STEP


@EITHER
async def test_forks_of_others_keep_what_they_show(database: DatabaseManager, erase: Erase) -> None:
    (parent,) = await fill(database, "ada", MANY)
    async with database.session() as db:
        repo = SessionRepository(db)
        own = await repo.fork(parent, MANY - 1)
        await repo.add_message_to_session(own.id, {"role": "user", "content": "own"})
        other = await repo.fork(own.id, MANY - 5)
        other.user_id = "bob"
        await repo.update(other)
        await repo.add_message_to_session(other.id, {"role": "user", "content": "other"})
    async with database.session() as db:
        before = [each.to_dict() async for each in SessionRepository(db).iter_messages(other.id)]
    changed = rows_of_statements(database)

    assert await erase(database, "ada") == 2
    assert max(changed) <= STEP
    async with database.session() as db:
        repo = SessionRepository(db)
        after = [each.to_dict() async for each in repo.iter_messages(other.id)]
        assert await repo.recount() == []
    assert len(after) == MANY - 4
    assert after == before


async def test_cut_off_anywhere_it_goes_on_with_what_is_left(database: DatabaseManager) -> None:
    await fill(database, "ada", MANY, 5, 900, 900)
    left = 0

    def cut(_: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise RuntimeError("killed")

    for commits in range(1, 50):
        left = commits
        event.listen(database.engine.sync_engine, "commit", cut)
        try:
            await erase_user(database, "ada")
            break
        except RuntimeError:
            pass
        finally:
            event.remove(database.engine.sync_engine, "commit", cut)
        async with database.session() as db:  # nothing of it is shown any more
            assert not await SessionRepository(db).get_user_sessions("ada")

    assert commits > 3
    assert await count(database) == (0, 0)


async def test_sessions_that_begin_meanwhile_go_too(database: DatabaseManager) -> None:
    await fill(database, "ada", MANY, 3)

    async def begin() -> None:
        for _ in range(5):
            await fill(database, "ada", 2)

    await asyncio.gather(erase_user(database, "ada"), begin())
    await erase_user(database, "ada")

    assert await count(database) == (0, 0)


async def test_two_that_erase_the_same_user_do_not_meet(database: DatabaseManager) -> None:
    await fill(database, "ada", MANY, 3, 800, 800, 800)

    erased = await asyncio.gather(*(erase_user(database, "ada") for _ in range(3)))

    assert sum(erased) == 5
    assert await count(database) == (0, 0)


@EITHER
async def test_users_whose_forks_are_of_one_family_go_at_the_same_time(database: DatabaseManager, erase: Erase) -> None:
    users = ["ada", "bob", "cid"]
    async with database.session() as db:
        repo = SessionRepository(db)
        for number in range(12):
            session = await repo.create(Session(user_id=users[number % 3]))
            await repo.add_message_to_session(session.id, {"role": "user"})
            for generation in range(1, 5):
                session = await repo.fork(session.id, 1)
                session.user_id = users[(number + generation) % 3]
                await repo.update(session)

    erased = await asyncio.gather(*(erase(database, user) for user in users))

    assert sum(erased) == 60
    assert await count(database) == (0, 0)


async def test_another_tenants_user_of_the_same_name_stays(database: DatabaseManager) -> None:
    await fill(database, "ada", 3)

    assert await erase_user(database, "ada", tenant_id="other") == 0
    assert await count(database) == (1, 3)


async def test_behind_row_security_it_works_for_its_tenant(postgres_url: str) -> None:
    database = DatabaseManager(postgres_url, row_security=True)
    await database.switch_row_security(on=True)
    await fill(database, "ada", MANY, 3)

    assert await erase_user(database, "ada") == 2
    await database.close()


async def test_what_cannot_be_a_user_is_refused(database: DatabaseManager) -> None:
    for given in ("", None, 7, "a\x00"):
        with pytest.raises(SessionValueError, match="user_id"):
            await erase_user(database, given)  # type: ignore[arg-type]


def bytes_of(path: Path) -> bytes:
    return b"".join(each.read_bytes() for each in path.parent.glob(f"{path.name}*"))


@EITHER
@pytest.mark.parametrize("indexed", [True, False], ids=["indexed", "pending"])
async def test_erased_text_is_not_in_the_file_once_it_is_rewritten(tmp_path: Path, erase: Erase, indexed: bool) -> None:
    path = tmp_path / "sessions.db"
    database = DatabaseManager(f"sqlite+aiosqlite:///{path}")
    await fill(database, "bob", 3, content="remaining")
    await fill(database, "ada", 800, 5, content="zqsecretzq")
    if indexed:
        await index_messages(database)
    assert b"zqsecretzq" in bytes_of(path)

    await erase(database, "ada")
    await index_messages(database)
    await rewrite_file(database)

    left = bytes_of(path)
    assert b"zqsecretzq" not in left
    for trigram in (b"zqs", b"qse", b"etz"):
        assert trigram not in left
    async with database.session() as db:
        assert len(await SessionRepository(db).search_messages("bob", "remaining")) == 3
    await database.close()
    assert b"zqsecretzq" not in bytes_of(path)


async def test_a_file_that_another_transaction_reads_is_not_rewritten(tmp_path: Path) -> None:
    database = DatabaseManager(f"sqlite+aiosqlite:///{tmp_path / 'sessions.db'}")
    await fill(database, "ada", 5)
    with closing(sqlite3.connect(tmp_path / "sessions.db")) as reading:
        reading.execute("BEGIN")
        reading.execute("SELECT * FROM agent_service_sessions").fetchall()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("agent_service.infrastructure.database.maintenance.erasure.BUSY_TIMEOUT", 0.2)
            with pytest.raises(DatabaseError, match="rewrite the file"):
                await rewrite_file(database)
    await rewrite_file(database)
    await database.close()


async def test_a_file_may_be_rewritten_before_anything_else_is_done(tmp_path: Path) -> None:
    database = DatabaseManager(f"sqlite+aiosqlite:///{tmp_path / 'sessions.db'}")
    await rewrite_file(database)
    assert await count(database) == (0, 0)
    await database.close()


async def test_where_there_is_no_file_there_is_nothing_to_rewrite(postgres_url: str) -> None:
    for url in (postgres_url, "sqlite+aiosqlite://"):
        database = DatabaseManager(url)
        await rewrite_file(database)
        await database.close()
