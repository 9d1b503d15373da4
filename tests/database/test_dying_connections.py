"""A connection to PostgreSQL dies at any moment, while it is made too: DatabaseUnavailableError, or nothing at all."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import event, text

from agent_service.core.errors import DatabaseUnavailableError
from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from tests.database.histories import check, new_sessions
from tests.servers.proxy import TcpProxy

SAID = {"role": "user", "content": "hello", "token_count": 1}

SHUTDOWN = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0\0"
SHUTDOWN = b"E" + (len(SHUTDOWN) + 4).to_bytes(4, "big") + SHUTDOWN
"""What a server says to idle clients when it is shut down, before it closes their connections."""


@pytest.fixture
async def proxy(postgres_url: str) -> AsyncIterator[TcpProxy]:
    async with TcpProxy(postgres_url) as started:
        yield started


@pytest.fixture
async def session_id(postgres_url: str) -> UUID:
    database = DatabaseManager(postgres_url)
    (created,) = await new_sessions(database, 1)
    await database.close()
    return created


async def login_size(proxy: TcpProxy) -> int:
    """Bytes that a server sends until a client may ask something."""
    connection = await asyncpg.connect(proxy.url.replace("+asyncpg", ""))
    size = proxy.replied
    await connection.close()
    return size


async def announce_shutdown(proxy: TcpProxy) -> None:
    """Have all clients be told, while their connections stay open for a moment."""
    proxy.send(SHUTDOWN)
    for _ in range(10):  # The proxy and its clients are on this loop.
        await asyncio.sleep(0)


async def test_a_session_whose_connection_dies_at_any_byte_ends_in_our_error(proxy: TcpProxy) -> None:
    login = await login_size(proxy)
    outcomes: Counter[str] = Counter()
    for size in (*range(1, login, 40), login - 1, login, login + 1, *range(login + 60, login + 2500, 120)):
        database = DatabaseManager(proxy.url, pool_size=1, max_overflow=0)
        proxy.cut_after(size)
        try:
            async with database.session() as db:
                await SessionRepository(db).create(Session(user_id="ada"))
        except Exception as exc:  # noqa: BLE001 - which one it is decides
            outcomes[type(exc).__name__] += 1
        else:
            outcomes["ok"] += 1
        await database.close()

    assert outcomes.keys() == {"ok", "DatabaseUnavailableError"}


async def test_a_writer_repeats_what_a_dying_connection_swallowed(
    proxy: TcpProxy, postgres_url: str, session_id: UUID
) -> None:
    login = await login_size(proxy)
    acknowledged = {}
    for size in (*range(1, login, 80), login - 1, login, login + 1, *range(login + 60, login + 2500, 120)):
        database = DatabaseManager(proxy.url)
        proxy.cut_after(size)
        async with SessionWriter(database) as writer:
            for turn in range(2):
                client_id = f"{size}-{turn}"
                stored = await writer.append(session_id, SAID, client_id=client_id)
                acknowledged[client_id] = (session_id, stored.seq)
        await database.close()

    database = DatabaseManager(postgres_url)
    total = await check(database, [session_id], acknowledged)
    await database.close()
    assert total == len(acknowledged)


async def test_a_writer_repeats_anything_while_no_connection_can_be_set_up(proxy: TcpProxy, session_id: UUID) -> None:
    database = DatabaseManager(proxy.url)
    login = await login_size(proxy)

    async with SessionWriter(database) as writer:
        proxy.cut_after(login)
        stored = await writer.append(session_id, SAID)
    await database.close()

    assert stored.seq == 1


async def test_a_connection_that_is_dead_before_it_is_set_up_is_unavailable(
    postgres_url: str, session_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, connect, dying = DatabaseManager(postgres_url), asyncpg.connect, 1

    async def connect_to_a_dying_server(*arguments: Any, **options: Any) -> asyncpg.Connection:
        nonlocal dying
        connection = await connect(*arguments, **options)
        if dying:
            dying -= 1
            connection.terminate()
        return connection

    monkeypatch.setattr(asyncpg, "connect", connect_to_a_dying_server)

    with pytest.raises(DatabaseUnavailableError, match="cannot connect"):
        await ask(database)
    dying = 1
    async with SessionWriter(database) as writer:
        stored = await writer.append(session_id, SAID)  # Without a client id: nothing was sent.
    await database.close()

    assert stored.seq == 1


async def test_a_server_that_closes_whatever_it_has_accepted_is_unavailable(postgres_url: str) -> None:
    database = DatabaseManager(postgres_url)
    dying = True

    def die(connection: Any, _: object) -> None:
        if dying:
            connection.driver_connection.terminate()

    event.listen(database.engine.sync_engine, "connect", die)

    with pytest.raises(DatabaseUnavailableError, match="closed it at once"):
        await ask(database)
    dying = False
    assert await ask(database) == 1
    await database.close()


async def ask(database: DatabaseManager) -> Any:
    async with database.session() as db:
        return (await db.execute(text("SELECT 1"))).scalar()


async def test_a_session_on_a_connection_whose_end_was_announced_ends_in_our_error(proxy: TcpProxy) -> None:
    database = DatabaseManager(proxy.url, pool_size=1, max_overflow=0)
    async with database.session() as db:
        await db.execute(text("SELECT 1"))
    await announce_shutdown(proxy)

    with pytest.raises(DatabaseUnavailableError):
        async with database.session() as db:
            await SessionRepository(db).get_user_sessions("ada")
    proxy.drop()
    async with database.session() as db:
        assert await SessionRepository(db).get_user_sessions("ada") == []
    await database.close()


async def test_a_writer_repeats_on_another_connection_when_an_end_was_announced(
    proxy: TcpProxy, session_id: UUID
) -> None:
    database = DatabaseManager(proxy.url)

    async with SessionWriter(database) as writer:
        await writer.append(session_id, SAID, client_id="1")
        await announce_shutdown(proxy)
        stored = await writer.append(session_id, SAID, client_id="2")
    await database.close()

    assert stored.seq == 2


async def test_a_statement_that_was_begun_in_peace_is_told_of_the_shutdown(proxy: TcpProxy) -> None:
    database = DatabaseManager(proxy.url)

    async def wait() -> None:
        async with database.session() as db:
            await db.execute(text("SELECT pg_sleep(60)"))

    async with database.session() as db:
        await db.execute(text("SELECT 1"))
        waiting = asyncio.create_task(wait())
        await until_asleep(database)
        await db.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)'")
        )
    with pytest.raises(DatabaseUnavailableError):
        await waiting
    await database.close()


async def until_asleep(database: DatabaseManager) -> None:
    """Wait until the server runs the sleep."""
    sleeping = text("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(60)' AND state = 'active'")
    found = 0
    while not found:
        async with database.session() as db:
            found = (await db.execute(sleeping)).scalar_one()


async def test_an_idle_transaction_that_the_server_ended_is_unavailable(postgres_url: str) -> None:
    database = DatabaseManager(postgres_url)

    with pytest.raises(DatabaseUnavailableError):  # noqa: PT012 - the session's end is what is tested
        async with database.session() as db:
            await db.execute(text("SET LOCAL idle_in_transaction_session_timeout = 1"))
            driver: Any = (await (await db.connection()).get_raw_connection()).driver_connection
            closed = asyncio.Event()
            driver.add_termination_listener(lambda _: closed.set())
            await closed.wait()
            await db.execute(text("SELECT 1"))
    async with database.session() as db:
        assert (await db.execute(text("SELECT 1"))).scalar() == 1
    await database.close()


async def test_a_server_without_room_for_another_connection_is_unavailable(postgres_url: str) -> None:
    database, other = DatabaseManager(postgres_url), DatabaseManager(postgres_url)
    async with database.session() as db:
        await db.execute(text("CREATE ROLE crowd LOGIN CONNECTION LIMIT 0"))
    await database.close()
    refused = DatabaseManager(postgres_url.replace("postgres@", "crowd@"))
    try:
        with pytest.raises(DatabaseUnavailableError, match="too many connections"):
            async with refused.session() as db:
                await db.execute(text("SELECT 1"))
    finally:
        await refused.close()
        async with other.session() as db:
            await db.execute(text("DROP ROLE crowd"))
        await other.close()
