"""The registry, the configuration file and the key resolver, in both faces."""

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent_service.context import factory, sync
from agent_service.context.caching.cache_backed import CacheBackedContextStore
from agent_service.context.database import DatabaseContextStore
from agent_service.context.factory import get_context_store, set_context_store
from agent_service.context.memory import InMemoryContextStore
from agent_service.context.redis import RedisContextStore
from agent_service.context.resolver import (
    clear_context,
    get_context,
    resolve_context_key,
    set_context,
    set_context_key_resolver,
    update_context,
)
from agent_service.core.errors import ConfigurationError, ContextConfigError, ContextKeyError
from agent_service.core.settings import reset_settings


@pytest.fixture(autouse=True)
def clean_registry() -> Iterator[None]:
    yield
    set_context_store(None)
    set_context_key_resolver(None)


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a configuration file and names it."""

    def write(text: str, name: str = "context.yaml", **environment: str) -> Path:
        path = tmp_path / name
        path.write_text(text)
        monkeypatch.setenv("DYNA_CONTEXT_CONFIG_PATH", str(path))
        for setting, value in environment.items():
            monkeypatch.setenv(setting, value)
        reset_settings()
        set_context_store(None)
        return path

    return write


# -- the registry


def test_without_anything_contexts_are_kept_in_memory():
    store = get_context_store()

    assert isinstance(store, InMemoryContextStore)
    assert get_context_store() is store


def test_a_store_that_was_set_is_given_in_both_faces():
    store = InMemoryContextStore()
    sync.set_context_store(store.sync)

    assert get_context_store() is store
    assert sync.get_context_store().store is store
    sync.get_context_store().set("session-123", {"user_name": "alice"})
    assert sync.get_context_store().update("session-123", {"jira_number": "PROJ-42"}) == {
        "user_name": "alice",
        "jira_number": "PROJ-42",
    }


def test_what_is_no_store_cannot_be_set():
    with pytest.raises(ConfigurationError, match="get, set and delete"):
        set_context_store({})


# -- the configuration file

REDIS = "redis://127.0.0.1:1/0"
SQLITE = "sqlite+aiosqlite:///contexts.db"


@pytest.mark.parametrize("name", ["context.yaml", "context.yml", "context.json", "context.toml"])
def test_the_file_may_be_yaml_json_or_toml(configure: Any, name: str):
    text = {
        "yml": f"context:\n  backend: redis\n  redis:\n    url: {REDIS}\n    prefix: bro\n",
        "json": json.dumps({"context": {"backend": "redis", "redis": {"url": REDIS, "prefix": "bro"}}}),
        "toml": f'[context]\nbackend = "redis"\n[context.redis]\nurl = "{REDIS}"\nprefix = "bro"\n',
    }
    configure(text["yml" if name[-3:] == "aml" else name.split(".")[1]], name)

    store = get_context_store()

    assert isinstance(store, RedisContextStore)
    assert store.redis_key("alice") == b"bro_alice"


def test_each_backend_can_be_named(configure: Any):
    configure("context: {}")
    assert isinstance(get_context_store(), InMemoryContextStore)
    configure("context:\n  backend: memory\n")
    assert isinstance(get_context_store(), InMemoryContextStore)
    configure(f"context:\n  backend: database\n  database:\n    url: {SQLITE}\n")
    assert isinstance(get_context_store(), DatabaseContextStore)
    configure(f"context:\n  backend: redis\n  redis:\n    url: {REDIS}\n")
    assert get_context_store().redis_key("a") == b"dynagent_ctx_a"  # type: ignore[attr-defined]
    configure(
        f"context:\n  backend: cache_backed\n  redis:\n    url: {REDIS}\n  database:\n    url: {SQLITE}\n",
        CONTEXT_CACHE_TTL="7.5",
    )
    store = get_context_store()
    assert isinstance(store, CacheBackedContextStore)
    assert store._ttl == 7.5
    assert isinstance(store._cache, RedisContextStore)


async def test_without_sections_the_settings_say_where(configure: Any, redis_url: str, tmp_path: Path):
    from agent_service.infrastructure.database.connection import close_database  # noqa: PLC0415
    from agent_service.infrastructure.redis.factory import close_redis  # noqa: PLC0415

    database = f"sqlite+aiosqlite:///{tmp_path / 'settings.db'}"
    configure("context:\n  backend: cache_backed\n", REDIS_URL=redis_url, DATABASE_URL=database)
    await set_context("a", {"x": 1})

    assert await get_context("a") == {"x": 1}
    async with RedisContextStore(url=redis_url) as cache:
        assert await cache.list_keys() == ["a"]
    await close_database()
    await close_redis()


def test_a_file_that_is_not_there_is_logged_and_contexts_are_kept_in_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("DYNA_CONTEXT_CONFIG_PATH", "missing.yaml")
    reset_settings()

    with caplog.at_level(logging.WARNING):
        assert isinstance(get_context_store(), InMemoryContextStore)

    assert "missing.yaml" in caplog.text


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        ("context:\n  backend: mongodb\n", "context.yaml", ["context.backend", "memory", "redis"]),
        ("context:\n  backend: redis\n  redis:\n    prefix: a\n", "context.yaml", ["context.redis.url", "missing"]),
        ("context:\n  backend: redis\n", "context.yaml", ["context.redis.url", "REDIS_URL"]),
        ("context:\n  backend: redis\n  redis:\n    url: http://u:secret@h\n", "context.yaml", ["context.redis.url"]),
        ("context:\n  backend: redis\n  redis:\n    url: redis://u:secret@h:port\n", "a.yaml", ["context.redis.url"]),
        ("context:\n  backend: redis\n  redis:\n    url: redis://u:secret@h/x\n", "a.yaml", ["context.redis.url"]),
        ("context:\n  backend: redis\n  redis:\n    url: ''\n", "a.yaml", ["context.redis.url"]),
        ("context:\n  redis:\n    url: redis://h\n    prefix: 5\n", "a.yaml", ["context.redis.prefix"]),
        ('{"context": {"backend": "redis", "redis": {"url": "redis://h", "prefix": "\\ud800"}}}', "a.json",
         ["context.redis.prefix"]),
        ("context:\n  redis: redis://u:secret@h\n", "a.yaml", ["context.redis"]),
        ("context:\n  redis:\n    url: redis://h\n    port: 1\n", "a.yaml", ["context.redis.port", "remove"]),
        ("context:\n  backend: database\n  database:\n    url: mysql://u:secret@h/d\n", "a.yaml",
         ["context.database.url", "mysql"]),
        ("context:\n  backend: database\n  database:\n    url: secret\n", "a.yaml", ["context.database.url"]),
        ("context:\n  backend: database\n  database:\n    url: sqlite:///secret.db\n", "a.yaml",
         ["context.database.url"]),
        ("context:\n  backend: cache_backed\n  redis:\n    url: redis://h\n  database:\n    url: postgresql://h:x/d\n",
         "a.yaml", ["context.database.url"]),
        ("context:\n  backend: memory\n  secrets: 1\n", "context.yaml", ["context.secrets", "remove"]),
        ("context:\n  redis:\n    url: {secret: 1}\n", "context.yaml", ["context.redis.url"]),
        ("backend: redis\n", "context.yaml", ["'context'"]),
        ("- 1\n", "context.yaml", ["'context'"]),
        ("", "context.yaml", ["'context'"]),
        ("context: [secret: }\n", "context.yaml", ["no valid YAML"]),
        ('{"context":\n secret}', "context.json", ["no valid JSON", "line 2"]),
        ("context = secret", "context.toml", ["no valid TOML"]),
        ("", "context.ini", [".yaml", ".json", ".toml"]),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_says_which_key_and_what_to_do(
    configure: Any, text: str, name: str, words: list[str]
):
    path = configure(text, name)

    with pytest.raises(ContextConfigError) as caught:
        get_context_store()

    assert str(path) in str(caught.value)
    assert [word for word in words if word not in str(caught.value)] == []
    assert "secret" not in str(caught.value).replace("context.secrets", "")
    assert [each for each in ("DATABASE_URL",) if each in str(caught.value)] == []
    assert factory._store is None


def test_without_pyyaml_the_remedy_is_named(configure: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    configure("context: {}")

    with pytest.raises(ContextConfigError, match=r"agent-service\[yaml\]"):
        get_context_store()


# -- the resolver


def _resolve_bro_context_key(state: Mapping[str, Any]) -> str:
    user_name = state.get("user_name") or "default"
    return f"{user_name}"


async def test_the_helpers_take_a_key_or_a_state():
    set_context_key_resolver(_resolve_bro_context_key)
    state = {"user_name": "alice"}

    assert await get_context(state) == {}
    await set_context(state, {"repo_name": "my-repo"})
    assert await update_context(state, {"n": 1, "left out": None}, drop_none=True) == {"repo_name": "my-repo", "n": 1}
    assert await get_context("alice") == await get_context(state) == {"repo_name": "my-repo", "n": 1}
    await set_context(("tuple", 1), {"x": 1})
    assert await get_context_store().list_keys() == ["alice", ("tuple", 1)]
    await clear_context(state)
    assert await get_context("alice") == {}


def test_the_helpers_work_without_await():
    set_context_key_resolver(_resolve_bro_context_key)
    state = {"user_name": "alice"}

    sync.set_context(state, {"x": 1})
    assert sync.update_context(state, {"y": None}) == {"x": 1, "y": None}
    assert sync.get_context("alice") == sync.get_context(state)
    sync.clear_context(state)
    assert sync.get_context(state) == {}


def test_without_a_resolver_the_state_names_the_key_and_else_shares_one(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        keys = [resolve_context_key(each) for each in ({"context_key": "a"}, {}, {"context_key": None}, {})]

    assert keys == ["a", "default", "default", "default"]
    assert caplog.text.count("share the context") == 1


def test_sharing_one_context_can_be_refused():
    set_context_key_resolver(_resolve_bro_context_key, required=True)

    assert resolve_context_key({"user_name": "alice"}) == "alice"
    with pytest.raises(ContextKeyError, match="input state"):
        resolve_context_key({})


def test_an_unusable_resolver_is_refused():
    with pytest.raises(ContextKeyError):
        set_context_key_resolver("user_name")  # type: ignore[arg-type] # that is the point
    set_context_key_resolver(lambda state: 1)  # type: ignore[arg-type, return-value] # that is the point
    with pytest.raises(ContextKeyError, match="int"):
        resolve_context_key({})
