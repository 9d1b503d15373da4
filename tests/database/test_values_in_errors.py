"""No value that a caller gave appears in an error of the database, or in a log line about one."""

import asyncio
import logging
import random
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from datetime import date
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import CheckConstraint, LargeBinary, String, text
from sqlalchemy.exc import DBAPIError, InvalidRequestError, PendingRollbackError, StatementError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from agent_service.core.errors import AgentServiceError, DatabaseError, DatabaseUnavailableError
from agent_service.core.logging import logger
from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.contexts.repository import SqlContextRepository
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.errors.lost import is_lost
from agent_service.infrastructure.database.errors.reasons import reason_of
from agent_service.infrastructure.database.errors.retrying import Failure, classify
from agent_service.infrastructure.database.errors.translation import translate
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from tests.support.depth import examples

MARKER = "zqmarkerzq"
DIGITS = 73_917_391_739_173_917_391


class Base(DeclarativeBase):
    """Of the application's own table."""


class Row(Base):
    """A context of the application's own, in columns that refuse much."""

    __tablename__ = "application_context"
    __table_args__ = (CheckConstraint("amount <> 7", name="not_seven"),)

    context_key: Mapped[str] = mapped_column(String(20), primary_key=True)
    name: Mapped[str | None] = mapped_column(String(12), unique=True)
    amount: Mapped[int | None]
    day: Mapped[date | None]
    raw: Mapped[bytes | None] = mapped_column(LargeBinary)


class Logged(logging.Handler):
    """Keeps what is logged, formatted."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def logged() -> Iterator[Logged]:
    handler = Logged()
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def require_hidden(exc: BaseException | None, logged: Logged) -> None:
    told = f"{exc} {exc!r} {' '.join(logged.lines)}"
    assert MARKER not in told
    assert str(DIGITS) not in told


values = st.sampled_from(
    [
        MARKER, f"{MARKER}\x00", f"\ud800{MARKER}", MARKER * 3, f"connection is closed {MARKER}", DIGITS, -DIGITS, 7,
        MARKER.encode(), [MARKER], {MARKER: MARKER}, {MARKER}, (MARKER,), float(DIGITS), True, date(2026, 1, 1),
    ]
)  # fmt: skip


@pytest.fixture
async def own_engine(database_url: str) -> Any:
    """An engine of the application's own, which does not hide parameters."""
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield engine
    await engine.dispose()


@settings(max_examples=examples(40, 120), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=values, column=st.sampled_from(["name", "amount", "day", "raw"]), value=values, whole=st.booleans())
async def test_a_context_that_cannot_be_written_is_not_repeated(
    own_engine: AsyncEngine, logged: Logged, key: Any, column: str, value: Any, whole: bool
) -> None:
    repository = SqlContextRepository(async_sessionmaker(own_engine), model=Row)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: (repository.set if whole else repository.update)(key, {column: value}),
        lambda: (repository.set if whole else repository.update)("other", {column: value}),
        lambda: repository.get(key),
        lambda: repository.delete(key),
    ]

    for call in calls:
        try:
            await call()
        except AgentServiceError as exc:
            require_hidden(exc, logged)


def _calls(repo: SessionRepository, key: Any) -> list[Callable[[], Awaitable[object]]]:
    message = {"role": MARKER, "content": MARKER, "more": [MARKER]}

    async def drain(iterator: Any) -> list[Any]:
        return [each async for each in iterator]

    line = f'{{"type":"session","format":1,"id":"{uuid4()}","user_id":"{MARKER}","status":"active","context":{{}}'
    moments = "".join(
        f',"{name}_at":"2026-01-01T00:00:00+00:00"' for name in ("created", "updated", "last_activity", "expires")
    )
    line += f',"title":"{MARKER}","metadata":{{}},"last_seq":0,"version":1{moments}}}'
    return [
        lambda: repo.create(Session(user_id=MARKER, title=MARKER, external_id=MARKER, context={"a": MARKER})),
        lambda: repo.get_by_external_id(MARKER),
        lambda: repo.add_message_to_session(key, message, client_id=MARKER),
        lambda: repo.add_messages_to_session(key, [message, message], client_ids=[MARKER, MARKER + "2"]),
        lambda: repo.get_messages(key, roles=[MARKER]),
        lambda: repo.update_session_context(key, {MARKER: MARKER}),
        lambda: repo.update_session_context(key, {MARKER: {MARKER: 1}}, deep=True),
        lambda: repo.set_session_context(key, {MARKER: MARKER}),
        lambda: repo.set_session_context_path(key, [MARKER], MARKER),
        lambda: repo.increment_session_context(key, MARKER, 1),
        lambda: repo.update_session_metadata(key, {MARKER: MARKER}),
        lambda: repo.get_user_sessions(MARKER),
        lambda: repo.get_sessions_by_agent(MARKER),
        lambda: repo.get_session_by_title(MARKER, MARKER),
        lambda: repo.search_sessions(MARKER, MARKER),
        lambda: repo.search_messages(MARKER, f'"{MARKER}* AND ('),
        lambda: repo.get_session_stats(MARKER),
        lambda: repo.count_active_sessions(MARKER),
        lambda: repo.bulk_update_session_status([key], "failed"),
        lambda: repo.fork(key, 0),
        lambda: repo.pop_message(key),
        lambda: repo.erase_user(MARKER),
        lambda: drain(repo.export_user(MARKER)),
        lambda: repo.import_user([line]),
    ]


async def _no_tables(database: DatabaseManager) -> None:
    await database.downgrade("base")


async def _refusing(database: DatabaseManager) -> None:
    """Have the tables refuse rows, on PostgreSQL with texts that repeat them."""
    async with database.engine.begin() as connection:
        if database.embedded:
            for table in ("sessions", "session_messages"):
                for event in ("INSERT", "UPDATE", "DELETE"):
                    await connection.exec_driver_sql(
                        f"CREATE TRIGGER no_{table}_{event} BEFORE {event} ON agent_service_{table} "
                        f"BEGIN SELECT json_extract(new.{'title' if table == 'sessions' else 'content'}, '$'); END"
                        if event != "DELETE"
                        else f"CREATE TRIGGER no_{table}_{event} BEFORE {event} ON agent_service_{table} "
                        f"BEGIN SELECT json_extract(old.{'title' if table == 'sessions' else 'content'}, '$'); END"
                    )
            return
        await connection.execute(
            text(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                "IF random() < 0.5 THEN RAISE 'never %', coalesce(new, old) USING DETAIL = coalesce(new, old)::text; "
                "END IF; PERFORM coalesce(new, old)::text::int; RETURN new; END $$"
            )
        )
        schema = (await connection.execute(text("SELECT to_regclass('agent_service.sessions')"))).scalar_one()
        assert schema
        for table in ("sessions", "session_messages"):
            await connection.exec_driver_sql(
                f"CREATE TRIGGER refuse BEFORE INSERT OR UPDATE OR DELETE ON agent_service.{table} "
                "FOR EACH ROW EXECUTE FUNCTION refuse()"
            )


@pytest.mark.parametrize("break_it", [_no_tables, _refusing], ids=["no tables", "refusing"])
async def test_no_method_repeats_what_it_was_given_when_the_database_refuses_it(
    database: DatabaseManager, logged: Logged, break_it: Callable[[DatabaseManager], Awaitable[None]]
) -> None:
    async with database.session() as db:
        repo = SessionRepository(db)
        session = await repo.create(Session(user_id=MARKER, title=MARKER))
        await repo.add_message_to_session(session.id, {"role": "user", "content": MARKER})
    await break_it(database)
    refused = 0
    for index in range(len(_calls(SessionRepository(AsyncSession(database.engine)), session.id))):
        try:
            async with database.session() as db:
                await _calls(SessionRepository(db), session.id)[index]()
        except DatabaseError as exc:
            refused += 1
            require_hidden(exc, logged)
    async with SessionWriter(database) as writer:
        with pytest.raises(AgentServiceError) as caught:
            await writer.append(session.id, {"role": "user", "content": MARKER}, client_id=MARKER)
    require_hidden(caught.value, logged)

    assert refused > 8


async def test_no_method_repeats_what_it_was_given_when_it_takes_too_long(postgres_url: str, logged: Logged) -> None:
    patient, hasty = DatabaseManager(postgres_url), DatabaseManager(postgres_url, statement_timeout=0.1)
    async with patient.session() as db:
        session = await SessionRepository(db).create(Session(user_id=MARKER))
    async with patient.session() as blocking:
        await blocking.execute(text("LOCK TABLE agent_service_sessions, agent_service_session_messages"))
        for index in range(5):
            with pytest.raises(DatabaseUnavailableError, match="DB_STATEMENT_TIMEOUT") as caught:
                async with hasty.session() as db:
                    await _calls(SessionRepository(db), session.id)[index]()
            require_hidden(caught.value, logged)
    await hasty.close()
    await patient.close()


async def test_a_constraint_is_named_and_its_row_is_not(own_engine: AsyncEngine) -> None:
    repository = SqlContextRepository(async_sessionmaker(own_engine), model=Row)
    await repository.set("one", {"name": MARKER})

    with pytest.raises(DatabaseError, match=r"(?i)unique constraint.*name") as unique:
        await repository.set("two", {"name": MARKER})
    with pytest.raises(DatabaseError, match="not_seven") as checked:
        await repository.set("three", {"amount": 7, "name": MARKER[:-1]})

    assert MARKER not in str(unique.value)
    assert MARKER[:-1] not in str(checked.value)


async def test_what_the_driver_cannot_send_names_the_argument(postgres_url: str) -> None:
    engine = create_async_engine(postgres_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    repository = SqlContextRepository(async_sessionmaker(engine), model=Row)

    with pytest.raises(DatabaseError, match=r"could not write a context: a value cannot be sent as \$\d") as caught:
        await repository.set("one", {"amount": MARKER})
    await engine.dispose()

    assert MARKER not in str(caught.value)


def _postgres_error(state: str, message: str) -> asyncpg.PostgresError:
    error: asyncpg.PostgresError = asyncpg.PostgresError.new({"C": state, "M": message, "D": f"Key is ({MARKER})"})
    return error


ERRORS = {
    "argument": lambda: asyncpg.DataError(f"invalid input for query argument $1: '{MARKER}' (no)"),
    "number": lambda: _postgres_error("22P02", f'invalid input syntax for type integer: "{MARKER}"'),
    "date": lambda: _postgres_error("22008", f'date/time field value out of range: "{MARKER}"'),
    "raised": lambda: _postgres_error("P0001", f"no {MARKER}"),
    "unknown": lambda: _postgres_error("99999", f"no {MARKER}"),
    "unique": lambda: _postgres_error("23505", 'duplicate key value violates unique constraint "x"'),
    "search": lambda: sqlite3.OperationalError(f'fts5: syntax error near "{MARKER}"'),
    "decoding": lambda: sqlite3.OperationalError(f"Could not decode to UTF-8 column 'a' with text '{MARKER}'"),
    "converter": lambda: ValueError(f"bad {MARKER}"),
    "encoding": lambda: UnicodeEncodeError("utf-8", f"\ud800{MARKER}", 0, 1, MARKER),
    "after a failure": lambda: PendingRollbackError(f"rolled back. Original exception was: {MARKER}"),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_a_reason_holds_no_value(kind: str) -> None:
    error = ERRORS[kind]()

    reasons = [reason_of(error)]
    if not isinstance(error, PendingRollbackError):
        reasons += [
            reason_of(DBAPIError("INSERT", {"a": MARKER}, error)),
            reason_of(StatementError("x", "I", {}, error)),
        ]
    for reason in reasons:
        assert MARKER not in reason
        assert len(reason) > 3


def test_reasons_still_say_what_is_wrong() -> None:
    assert reason_of(_postgres_error("23505", 'violates unique constraint "x"')) == 'violates unique constraint "x"'
    assert reason_of(_postgres_error("22P02", "x")) == "invalid text representation, SQLSTATE 22P02"
    assert reason_of(sqlite3.IntegrityError("UNIQUE constraint failed: a.b")) == "UNIQUE constraint failed: a.b"
    assert reason_of(ConnectionResetError()) == "ConnectionResetError"
    assert reason_of(OSError("Connect call failed")) == "Connect call failed"
    assert reason_of(InvalidRequestError("A transaction is already begun")) == "A transaction is already begun"


@pytest.mark.parametrize("said", ["connection is closed", "database is locked", "no such table", "connection closed"])
def test_a_value_that_reads_like_an_outage_is_none(said: str) -> None:
    argument = asyncpg.exceptions._base.DataError(f"invalid input for query argument $1: '{said}' (no)")
    number = _postgres_error("22P02", f'invalid input syntax for type integer: "{said}"')

    for error in (argument, number):
        wrapped = DBAPIError(f"SELECT '{said}'", {"a": said}, error)
        assert not is_lost(wrapped)
        assert classify(wrapped) is Failure.REFUSED
        assert type(translate(wrapped, "do")) is DatabaseError
        assert "upgrade" not in str(translate(wrapped, "do"))


async def test_a_deadlock_repeats_no_value(postgres_url: str, logged: Logged) -> None:
    database = DatabaseManager(postgres_url)
    async with database.session() as db:
        ids = [(await SessionRepository(db).create(Session(user_id=MARKER))).id for _ in range(2)]
    both = asyncio.Barrier(2)

    async def write(first: Any, second: Any) -> None:
        async with database.session() as db:
            repo = SessionRepository(db)
            await repo.update_session_context(first, {MARKER: MARKER})
            await both.wait()
            await repo.update_session_context(second, {MARKER: random.random()})

    results = await asyncio.gather(write(*ids), write(*ids[::-1]), return_exceptions=True)
    await database.close()

    (failed,) = (each for each in results if each is not None)
    assert isinstance(failed, AgentServiceError)
    require_hidden(failed, logged)
