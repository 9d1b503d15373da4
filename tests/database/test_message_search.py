"""Messages are found literally, ranked, with their words marked; indexed where it can be. On both engines."""

import logging
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.core.errors import SessionValueError
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries import search
from agent_service.infrastructure.database.queries.search_index import index_oldest
from agent_service.infrastructure.database.repositories import SessionRepository
from tests.database.conftest import NewSession
from tests.servers.postgres import PostgresServer


async def say(repo: SessionRepository, session: Session, *contents: Any) -> None:
    for content in contents:
        await repo.add_message_to_session(session.id, {"role": "user", "content": content})


async def test_hits_come_best_first_with_their_words_marked(repo: SessionRepository, new_session: NewSession) -> None:
    session, other = await new_session(user_id="ada"), await new_session(user_id="ada")
    await say(repo, session, "a needle here", "nothing", "NEEDLE and needle", "needle " + "hay " * 500, None)
    await say(repo, other, "a Needle here")

    hits = await repo.search_messages("ada", "needle")

    assert [(hit.session.id, hit.seq) for hit in hits] == [
        (session.id, 3), (other.id, 1), (session.id, 1), (session.id, 4),
    ]  # fmt: skip
    assert [hit.snippet for hit in hits[:3]] == ["**NEEDLE** and **needle**", "a **Needle** here", "a **needle** here"]
    assert 1 > hits[0].rank > hits[1].rank == hits[2].rank > hits[3].rank > 0
    assert [(hit.session.id, hit.seq) for hit in await repo.search_messages("ada", "needle", limit=1)] == [
        (session.id, 3)
    ]


async def test_a_snippet_is_the_neighbourhood_of_the_first_occurrence(
    repo: SessionRepository, new_session: NewSession
) -> None:
    session = await new_session(user_id="ada")
    await say(repo, session, "x" * 1_000 + " needle " + "y" * 1_000)

    (hit,) = await repo.search_messages("ada", "Needle")

    assert hit.snippet == "…" + "x" * 59 + " **needle** " + "y" * 59 + "…"


@pytest.mark.parametrize(
    ("stored", "term", "snippet"),
    [
        ("100% sure", "100%", "**100%** sure"),
        ("1000 sure", "100%", None),
        ("a_b", "a_b", "**a_b**"),
        ("axb", "a_b", None),
        (r"C:\temp\new", r"\temp", r"C:**\temp**\new"),
        ('say "hello"', '"hello"', 'say **"hello"**'),
        ("a AND b", "AND b", "a **AND b**"),
        ("a.b", "a.b", "**a.b**"),
        ("(a)[b]*", "(a)[b]*", "**(a)[b]***"),
        ("Zażółć GĘŚLĄ jaźń", "gęślą", "Zażółć **GĘŚLĄ** jaźń"),
        ("東京都", "東京", "**東京**都"),
        ("ab", "b", "a**b**"),
        ("ab", "%", None),
        ("ab", "_", None),
        ("a\x00bcd", "a\x00bc", "**abc**d"),
        ("x", " ", None),
        ("x", "", None),
        ("line\nneedle\nline", "needle", "line\n**needle**\nline"),
        ("", "abc", None),
    ],
)
async def test_a_term_is_taken_as_it_stands(
    repo: SessionRepository, new_session: NewSession, stored: str, term: str, snippet: str | None
) -> None:
    await say(repo, await new_session(user_id="ada", title=stored.replace("\x00", "")), stored)

    assert [hit.snippet for hit in await repo.search_messages("ada", term)] == ([snippet] if snippet else [])


async def test_only_the_users_own_sessions_that_are_not_deleted(
    repo: SessionRepository, new_session: NewSession
) -> None:
    mine, hidden, anothers = [await new_session(user_id=user) for user in ("ada", "ada", "bob")]
    for session in (mine, hidden, anothers):
        await say(repo, session, "a needle")
    await repo.delete(hidden.id)

    for term in ("needle", "ee"):
        assert [hit.session for hit in await repo.search_messages("ada", term)] == [mine]


async def test_a_short_term_is_looked_for_in_the_latest_messages_only(
    db: AsyncSession, repo: SessionRepository, new_session: NewSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "LATEST", 3)
    old, new = await new_session(user_id="ada"), await new_session(user_id="ada")
    await say(repo, old, "zq one", "zq two")
    await say(repo, new, "zq three", "zq four")

    found = {(hit.session.id, hit.seq) for hit in await repo.search_messages("ada", "zq")}

    assert found == {(new.id, 1), (new.id, 2), (old.id, 2)}
    if db.get_bind().dialect.name == "sqlite":  # what waits to be indexed is looked at besides
        await (await db.connection()).run_sync(index_oldest, 10)
    assert len(await repo.search_messages("ada", "zq ")) == 3


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("ada", 7), "term"),
        (("ada", None), "term"),
        (("ada", "\ud800"), "term"),
        (("ada", "x", 0), "limit"),
        (("", "x"), "user_id"),
    ],
)
async def test_arguments_that_cannot_be_are_refused(repo: SessionRepository, arguments: Any, name: str) -> None:
    with pytest.raises(SessionValueError, match=f"^{name} "):
        await repo.search_messages(*arguments)


async def test_the_whole_query_uses_the_index(db: AsyncSession, database: DatabaseManager) -> None:
    scope = (Session.tenant_id == "", Session.user_id == "ada")
    statement = search.ranked(database.engine.dialect.name, "needle", scope, 20)
    compiled = statement.compile(database.engine.sync_engine, compile_kwargs={"literal_binds": True})
    if database.embedded:
        plan = (await db.execute(text(f"EXPLAIN QUERY PLAN {compiled}"))).all()
        assert "VIRTUAL TABLE INDEX" in str(plan)
        return
    if not (await db.execute(text("SELECT 1 FROM pg_extension WHERE extname = 'pg_trgm'"))).scalar():
        pytest.skip("this server has no pg_trgm; search works without its index")
    await db.execute(text("SET LOCAL enable_seqscan = off"))
    await db.execute(text("SET LOCAL enable_indexscan = off"))
    plan = (await db.execute(text(f"EXPLAIN {str(compiled).replace(':', chr(92) + ':')}"))).all()
    assert search.CONTENT_INDEX in str(plan)


async def test_a_missing_extension_is_said_once(
    postgres_server: PostgresServer, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("agent_service").propagate = True
    name = "search_without_trigram"
    url = postgres_server.create_database(name)
    request.addfinalizer(lambda: postgres_server.drop_database(name))
    database = DatabaseManager(url)
    await database.upgrade()
    async with database.engine.begin() as connection:
        await connection.execute(text(f"DROP INDEX agent_service_{search.CONTENT_INDEX}"))

    async with database.session() as db:
        repo = SessionRepository(db)
        await say(repo, await repo.create(Session(user_id="ada", title="t")), "a needle")
        found = [len(await repo.search_messages("ada", "needle")) for _ in range(2)]
        found.append(len(await repo.search_sessions("ada", "needle")))
    await database.close()

    assert found == [1, 1, 1]
    assert len([each for each in caplog.records if "pg_trgm" in each.message]) == 1
