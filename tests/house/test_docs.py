"""Documentation is code that runs: README's blocks and the first document's examples, here and there."""

import re
import shlex
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from agent_service.cli.parser import build_parser
from agent_service.core.errors import RedisUnavailableError
from agent_service.core.settings import Settings
from agent_service.infrastructure.cache import cache_invalidate, cached, get_cache, get_redis_manager
from agent_service.infrastructure.database import get_session
from agent_service.infrastructure.database.models.session import Session, SessionStatus
from agent_service.infrastructure.database.repositories import SessionRepository
from tests.house.document_a import EXAMPLES, SETTINGS
from tests.house.snippets import run_block, run_document

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
NEEDS_REDIS = {"scan_keys", "mget", "mset", "delete_by_pattern", "batch operations"}
DOCUMENTS_OF_REDIS = {"runtime.md", "tenants.md", "triggers.md"}

Run = Callable[..., Awaitable[dict[str, Any]]]


class Source:
    """What a reader of the examples has of his own: data behind the cached functions. Counts the queries."""

    def __init__(self) -> None:
        self.rows: dict[str, Any] = {}
        self.queries = 0

    async def query_user(self, user_id: str = "") -> Any:
        self.queries += 1
        return self.rows.get(user_id)

    async def update_user(self, user_id: str, data: dict[str, Any]) -> None:
        self.rows[user_id] = data

    def to_dict(self) -> dict[str, Any]:
        return self.rows


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def run(house: str, source: Source) -> Run:
    """Run one example in a database session of its own, with what it takes for granted; give all names after it."""

    async def run(title: str, **given: Any) -> dict[str, Any]:
        async with get_session() as db:
            names = await names_taken_for_granted(SessionRepository(db), source) | given
            await db.commit()
            await run_block(EXAMPLES[title], names, filename=f"<{title}>")
        return names

    return run


async def names_taken_for_granted(repo: SessionRepository, source: Source) -> dict[str, Any]:
    user_id = uuid4()
    sessions = [await repo.create(Session(user_id=user_id, title=f"Learn python {number}")) for number in range(3)]
    return {
        "cache": await get_cache(),
        "manager": await get_redis_manager(),
        "repo": repo,
        "user_id": user_id,
        "session": sessions[0],
        "session_id": sessions[0].id,
        **{f"id{number}": each.id for number, each in enumerate(sessions, 1)},
        "db": source,
        **dict.fromkeys(("fetch_user", "fetch_data", "fetch_data_or_none"), source.query_user),
        "save_user": source.update_user,
        "some_complex_object": source,
        **{each.__name__: each for each in (SessionRepository, Session, SessionStatus, get_session)},
        **{each.__name__: each for each in (get_cache, get_redis_manager, cached, cache_invalidate)},
    }


@pytest.mark.parametrize("title", EXAMPLES)
async def test_every_example_runs_as_written(title: str, run: Run, house: str):
    if title in NEEDS_REDIS and house == "memory and SQLite":
        with pytest.raises(RedisUnavailableError, match="REDIS_URL is not set"):
            await run(title)
    else:
        await run(title)


async def test_the_basic_example_gets_what_it_set_and_then_deletes_it(run: Run):
    names = await run("basic cache usage")

    assert names["user"] == {"name": "John"}
    assert await names["cache"].get("user:123") is None


async def test_the_interface_examples_answer_as_documented(run: Run):
    cache = await get_cache()

    assert (await run("get"))["value"] is None
    await run("set")
    assert (await run("get"))["value"] == {"data": "value"}
    assert (await run("exists"))["exists"] is True
    await run("expire")
    assert 0 < await cache.ttl("my_key") <= 60  # type: ignore[operator]
    assert (await run("delete"))["deleted"] is True
    assert (await run("delete"))["deleted"] is False
    assert [(await run("increment"))["count"] for _ in range(3)] == [1, 2, 3]
    await run("serialize manually")
    await run("redis connection issues")
    assert await cache.get("key") == "value"


async def test_the_decorator_examples_cache_until_the_mutation(run: Run, source: Source):
    source.rows["7"] = {"name": "Ada"}
    names = await run("using cache decorators")
    get_user, update_user = names["get_user"], names["update_user"]

    before = [await get_user("7"), await get_user(user_id="7")]
    await update_user("7", {"name": "Grace"})
    after = [await get_user("7"), await get_user("7")]

    assert before == [{"name": "Ada"}] * 2
    assert after == [{"name": "Grace"}] * 2
    assert source.queries == 2


@pytest.mark.parametrize("title", ["pattern-based invalidation", "invalidate on mutations", "cache_invalidate"])
async def test_every_invalidation_example_reaches_the_cached_users(title: str, run: Run, source: Source):
    cached_users = (await run("cached"))["get_user"]
    names = await run(title)
    mutate = names.get("update_user_profile") or names["update_user"]
    await cached_users("7")

    await (mutate("7") if title == "pattern-based invalidation" else mutate("7", {}))
    await cached_users("7")

    assert source.queries == 2


async def test_the_selective_example_asks_again_for_what_was_none(run: Run, source: Source):
    get_optional_data = (await run("selective caching"))["get_optional_data"]

    assert [await get_optional_data("x") for _ in range(2)] == [None, None]
    source.rows["x"] = 1
    assert [await get_optional_data("x") for _ in range(2)] == [1, 1]
    assert source.queries == 3


async def test_the_namespaces_of_the_example_are_apart(run: Run):
    names = await run("namespace isolation")

    await names["user_cache"].set("same", 1)

    assert await names["session_cache"].get("same") is None
    assert names["user_cache"] is await get_cache("users")


async def test_the_repository_example_stores_counts_and_commits(run: Run, capsys: pytest.CaptureFixture[str]):
    names = await run("session repository")

    assert capsys.readouterr().out == "Total messages: 1\n"
    async with get_session() as db:
        stored = await SessionRepository(db).get_session_with_messages(names["session"].id)
    assert stored is not None
    assert (stored.title, stored.agent_id, stored.status) == ("Debug Python Script", "code_agent", "active")
    assert [message["content"] for message in stored.messages] == ["Help me debug this code"]


async def test_the_repository_reference_answers_as_documented(run: Run, capsys: pytest.CaptureFixture[str]):
    assert len((await run("get_user_sessions"))["sessions"]) == 3
    await run("get_session_with_messages")
    await run("add_message_to_session")
    updated = await run("update_session_context")
    assert updated["session"].context == {"language": "python", "mode": "debug"}
    assert (await run("cleanup_expired_sessions"))["cleaned"] == 0
    await run("get_session_stats")
    await run("get_paginated_user_sessions")
    assert len((await run("search_sessions"))["sessions"]) == 3
    assert (await run("bulk_update_session_status"))["count"] == 3

    assert capsys.readouterr().out.splitlines() == [
        "Messages: 0",
        *("Total sessions: 3", "Active sessions: 3", "Total messages: 0", "Hit rate: 0.0"),
        "Page 1 of 1",
    ]


async def test_the_cleanup_example_is_a_task_that_a_scheduler_can_call(run: Run):
    names = await run("clean up expired sessions")

    await names["cleanup_task"]()


@pytest.mark.parametrize("surroundings", ["Redis and PostgreSQL"], indirect=True)
async def test_the_manager_examples_see_the_keys_of_the_caches(run: Run):
    await (await get_cache("users")).set("user:1", 1)
    await (await get_cache("temp")).set("x", 1)

    assert (await run("scan_keys"))["keys"] == ["users:user:1"]
    await run("mset")
    assert (await run("mget"))["values"] == ["value1", "value2", None]
    assert (await run("delete_by_pattern"))["deleted"] == 1


async def test_the_metrics_examples_print_what_was_read(run: Run, capsys: pytest.CaptureFixture[str]):
    manager, cache = await get_redis_manager(), await get_cache()
    manager.metrics.reset()
    await cache.set("key", 1)
    for key in ("key", "key", "key", "none"):
        await cache.get(key)

    await run("get_metrics")
    await run("cache metrics")

    assert capsys.readouterr().out.splitlines() == ["Hit rate: 75.0%", "Hits: 3", "Misses: 1", "Hit rate: 75.00%"]


def test_the_documented_env_file_is_understood(tmp_path: Path):
    (tmp_path / "documented.env").write_text(SETTINGS, encoding="utf-8")

    settings = Settings(_env_file=tmp_path / "documented.env")

    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value() == "redis://localhost:6379/0"
    assert (settings.cache_default_ttl, settings.cache_key_prefix) == (300, "agent_service")
    assert (settings.session_max_messages, settings.session_expiry_hours) == (100, 24)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
async def test_the_python_blocks_of_a_document_run_from_top_to_bottom(document: Path, house: str):
    if document.name in DOCUMENTS_OF_REDIS and house == "memory and SQLite":
        with pytest.raises(RedisUnavailableError, match="REDIS_URL is not set"):
            await run_document(document)
    else:
        await run_document(document)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_commands_and_links_of_a_document_exist(document: Path):
    text = document.read_text(encoding="utf-8")

    for command in re.findall(
        r"^(?:\$ )?(?:python -m agent_service|agent-service) (.+?)(?: +#.*)?$", text, re.MULTILINE
    ):
        build_parser().parse_args(shlex.split(command))
    for target in re.findall(r"(?m)^make ([a-z]+)", text):
        assert re.search(rf"(?m)^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8")), target
    for link in re.findall(r"\]\((?!https?://|#)([^)#]+)", text):
        assert (document.parent / link).exists(), link


def test_the_readme_can_be_read_in_two_minutes():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130, "say more on a page of docs/"


async def test_the_fastapi_example_of_the_readme_serves_requests(house: str):
    names = await run_document(ROOT / "README.md")
    async with get_session() as db:
        session = await SessionRepository(db).create(Session(user_id="alice"))

    app = names["app"]
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        user = await client.get("/users/7")
        added = await client.post(f"/sessions/{session.id}/messages", json={"role": "user", "content": "Hello"})
        unknown = await client.post(f"/sessions/{uuid4()}/messages", json={"role": "user", "content": "Hello"})

    assert (user.json(), added.json(), unknown.status_code) == ("Grace", 1, 404)
