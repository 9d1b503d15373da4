"""Search is literal, in any case, over titles and messages, indexed; the same on both engines."""

import random
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import insert, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from tests.database.conftest import NewSession

LANGUAGES = "Zażółć gęślą jaźń; ΟΔΥΣΣΕΥΣ; 東京都; Ünïcode 😀 party"

PROVE = "INSERT INTO agent_service_session_search (agent_service_session_search) VALUES ('integrity-check')"
PLAN = """
EXPLAIN QUERY PLAN
SELECT rowid FROM agent_service_session_search WHERE agent_service_session_search MATCH '"needle"'
"""

PLANS = "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement LIKE 'WITH RECURSIVE%'"


@pytest.mark.parametrize(
    ("stored", "term", "found"),
    [
        ("Debug Python Script", "python", True),
        ("Debug Python Script", "PYTHON scr", True),
        ("Debug Python Script", "pythonscript", False),
        ("100% sure", "100%", True),
        ("100 sure", "100%", False),
        ("a_b_c", "a_b", True),
        ("axbxc", "a_b", False),
        (r"C:\temp\new", r"\temp\n", True),
        (r"C:\temp\new", r"%temp%", False),
        ('say "hello" twice', '"hello"', True),
        ("it's", "it's", True),
        ("a AND b OR c", "AND b", True),
        ("column:value", "n:v", True),
        ("star*", "star*", True),
        ("-minus", "-min", True),
        (LANGUAGES, "gęślą", True),
        (LANGUAGES, "GĘŚLĄ", True),
        (LANGUAGES, "东京", False),
        (LANGUAGES, "東京", True),
        (LANGUAGES, "京都", True),
        (LANGUAGES, "ünïc", True),
        (LANGUAGES, "😀", True),
        (LANGUAGES, "😀 P", True),
        ("ab", "b", True),
        ("aB", "Ab", True),
        ("Ł", "ł", True),
        ("a\x00bcd", "abcd", True),
        ("a\x00bcd", "a\x00b", True),
        ("x", " ", False),
        ("x", "", False),
        ("x", "\x00", False),
        ("x" * 50_000 + "needle", "needle", True),
        ("short", "y" * 10_000, False),
    ],
)
async def test_a_term_is_found_as_it_stands(
    repo: SessionRepository, new_session: NewSession, stored: str, term: str, found: bool
) -> None:
    in_message = await new_session(user_id="ada", title="-")
    await repo.add_message_to_session(in_message.id, {"role": "user", "content": stored})
    expected = {in_message}
    if "\x00" not in stored:
        expected.add(await new_session(user_id="ada", title=stored))

    sessions = await repo.search_sessions("ada", term)

    assert set(sessions) == (expected if found else set())


async def test_only_titles_when_asked(repo: SessionRepository, new_session: NewSession) -> None:
    titled = await new_session(user_id="ada", title="Needle")
    spoken = await new_session(user_id="ada")
    await repo.add_message_to_session(spoken.id, {"role": "user", "content": "a needle"})

    assert await repo.search_sessions("ada", "needle") == [spoken, titled]
    assert await repo.search_sessions("ada", "needle", in_content=False) == [titled]
    assert await repo.search_sessions("ada", "ne", in_content=False) == [titled]


async def test_a_session_comes_once_in_order_up_to_the_limit(repo: SessionRepository, new_session: NewSession) -> None:
    sessions = [await new_session(user_id="ada", title="needle") for _ in range(3)]
    for session in sessions:
        for _ in range(3):
            await repo.add_message_to_session(session.id, {"role": "user", "content": "needle needle"})

    assert await repo.search_sessions("ada", "needle") == sessions[::-1]
    assert await repo.search_sessions("ada", "needle", limit=2) == sessions[:0:-1]


async def test_another_users_sessions_are_not_searched(repo: SessionRepository, new_session: NewSession) -> None:
    await new_session(user_id="bob", title="needle")

    assert await repo.search_sessions("ada", "needle") == []
    assert await repo.search_sessions("ada", "ne") == []


async def test_parts_of_a_message_are_searched(repo: SessionRepository, new_session: NewSession) -> None:
    session = await new_session(user_id="ada")
    parts: list[Any] = [{"type": "text", "text": "look at the needle"}, {"type": "image", "url": "hidden"}, "loose end"]
    await repo.add_message_to_session(session.id, {"role": "user", "content": parts})

    found = [await repo.search_sessions("ada", term) for term in ("needle", "loose", "hidden")]

    assert found == [[session], [session], []]


async def test_a_changed_title_is_found_by_its_new_words_only(repo: SessionRepository, new_session: NewSession) -> None:
    session = await new_session(user_id="ada", title="before")

    session.title = "after"
    await repo.update(session)
    after = [await repo.search_sessions("ada", term) for term in ("before", "after")]
    session.title = None
    await repo.update(session)

    assert after == [[], [session]]
    assert await repo.search_sessions("ada", "after") == []


async def test_the_index_survives_vacuum(database: DatabaseManager) -> None:
    async with database.session() as db:
        repo = SessionRepository(db)
        sessions = [await repo.create(Session(user_id="ada", title=f"title{n}x")) for n in range(5)]
        for number, session in enumerate(sessions):
            await repo.add_message_to_session(session.id, {"role": "user", "content": f"needle{number}x"})
        await repo.delete(sessions[1].id, hard=True)

    async with database.engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        await driver.execute("VACUUM")  # type: ignore[union-attr]

    async with database.session() as db:
        repo = SessionRepository(db)
        for number in (0, 2, 3, 4):
            assert [each.id for each in await repo.search_sessions("ada", f"needle{number}x")] == [sessions[number].id]
        assert await repo.search_sessions("ada", "needle1x") == []
        if database.embedded:
            await db.execute(text(PROVE))


async def test_a_rare_word_is_looked_up_in_the_index(db: AsyncSession, database: DatabaseManager) -> None:
    if database.embedded:
        plan = await db.execute(text(PLAN))
        assert "VIRTUAL TABLE INDEX" in str(plan.all())
        return
    if not (await db.execute(text("SELECT 1 FROM pg_extension WHERE extname = 'pg_trgm'"))).scalar():
        pytest.skip("this server has no pg_trgm; search works without its index")
    await db.execute(text("SET LOCAL enable_seqscan = off"))
    plan = await db.execute(text("EXPLAIN SELECT 1 FROM agent_service_session_messages WHERE content ILIKE '%needle%'"))
    assert "ix_session_messages_content_trigram" in str(plan.all())


@pytest.mark.parametrize("seed", range(3))
async def test_what_is_found_is_what_a_look_at_every_session_finds(
    db: AsyncSession, database: DatabaseManager, seed: int
) -> None:
    dice = random.Random(seed)
    repos = {tenant: SessionRepository(db, tenant) for tenant in ("", "acme")}
    sessions: list[tuple[SessionRepository, UUID]] = []
    for _ in range(30):
        repo = repos[dice.choice(["", "", "acme"])]
        mine = [key for owner, key in sessions if owner is repo]
        if mine and dice.random() < 0.4:
            parent = await repo.get(dice.choice(mine))
            session = await repo.fork(parent.id, dice.randint(0, parent.last_seq)) if parent else None
        else:
            user, title = dice.choice(["ada", "ada", "bob"]), dice.choice([None, a_text(dice), a_text(dice)])
            session = await repo.create(Session(user_id=user, title=title))
        if session is None:
            continue
        sessions.append((repo, session.id))
        messages = [{"role": "user", "content": a_text(dice)} for _ in range(dice.randrange(12))]
        if messages:
            await repo.add_messages_to_session(session.id, messages)
        if database.embedded and dice.random() < 0.3:
            await leave_one_to_be_indexed(db, repo, session, a_text(dice))
        if dice.random() < 0.1:
            await repo.delete(session.id)
    searches = [
        (repo, term, limit, in_content)
        for repo in repos.values()
        for term in ("Frequent", "now and then", "rarely", "never", "qu")
        for limit in (1, 3, 50)
        for in_content in (True, False)
    ]

    seen = {repo: await everything(repo) for repo in repos.values()}
    for repo, term, limit, in_content in searches:
        found = await repo.search_sessions("ada", term, limit, in_content=in_content)
        assert [each.id for each in found] == by_looking(seen[repo], term, limit, in_content=in_content)


def a_text(dice: random.Random) -> str:
    words = [
        word for word, share in (("frequent", 0.5), ("Now and Then", 0.1), ("RARELY", 0.01)) if dice.random() < share
    ]
    return " ".join(["hay", *words])


async def leave_one_to_be_indexed(db: AsyncSession, repo: SessionRepository, session: Session, content: str) -> None:
    """Insert a message as no method of ours does, which would index it."""
    key, seq = session.id, session.last_seq + 1
    values = {
        "tenant_id": repo.tenant_id,
        "session_id": key,
        "seq": seq,
        "role": "user",
        "created_at": session.created_at,
    }
    await db.execute(insert(SessionMessage).values(**values, search_text=content, data={"content": content}))
    counted = update(Session).where(Session.tenant_id == repo.tenant_id, Session.id == key)
    await db.execute(counted.values(last_seq=seq, total_messages=Session.total_messages + 1))


async def everything(repo: SessionRepository) -> list[tuple[UUID, str, list[str]]]:
    """Return the id, title and messages of each session, in the order of results."""
    return [
        (session.id, session.title or "", [message.content async for message in repo.iter_messages(session.id)])
        for session in await repo.get_user_sessions("ada", active_only=False, limit=1_000)
    ]


def by_looking(sessions: list[tuple[UUID, str, list[str]]], term: str, limit: int, *, in_content: bool) -> list[UUID]:
    found = []
    for key, title, contents in sessions:
        texts = [title, *contents] if in_content else [title]
        if any(term.lower() in each.lower() for each in texts):
            found.append(key)
    return found[:limit]


async def test_postgres_plans_each_search_for_its_term(postgres_url: str) -> None:
    database = DatabaseManager(postgres_url)
    async with database.session() as db:
        repo = SessionRepository(db)
        await db.execute(text("SET LOCAL plan_cache_mode = force_generic_plan"))
        for n in range(8):
            await repo.search_sessions("ada", f"needle{n}")
        mode = (await db.execute(text("SHOW plan_cache_mode"))).scalar()
        plans = (await db.execute(text(PLANS))).all()
    await database.close()

    assert mode == "force_generic_plan"
    assert plans == [(0, 8)]
