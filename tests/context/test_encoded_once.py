"""A document is encoded once on its way through a cache-backed store, whatever is before and behind."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_service.context import documents
from agent_service.context.caching.cache_backed import CacheBackedContextStore
from agent_service.context.database import DatabaseContextStore
from agent_service.context.documents import EncodedDocument, encoded, own_document, write_document
from agent_service.context.files.store import FileContextStore
from agent_service.context.interface import ContextStore
from agent_service.context.memory import InMemoryContextStore
from agent_service.context.redis import RedisContextStore
from agent_service.core import codec
from agent_service.core.errors import ContextStoreError
from agent_service.core.values import json_writer
from agent_service.core.values.json_writer import Writer
from agent_service.infrastructure.redis.client import RedisClient
from tests.context import document_c

DOCUMENT = {"list": [1, 2.5, {"deep": None}], "at": datetime(2026, 1, 2, tzinfo=UTC), "text": "ä"}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every list that is encoded."""
    encodings: list[Any] = []

    class Counting(Writer):
        def node(self, value: Any, depth: int = 0) -> Any:
            if depth == 0 and isinstance(value, dict | list) and value:
                encodings.append(value)
            return super().node(value, depth)

    monkeypatch.setattr(json_writer, "Writer", Counting)
    monkeypatch.setattr(documents, "Writer", Counting)
    return encodings


STORES: dict[str, Callable[[RedisClient, Path, str], Any]] = {
    "memory": lambda _client, _folder, _prefix: InMemoryContextStore(),
    "redis": lambda client, _folder, prefix: RedisContextStore(client=client, prefix=prefix),
    "sqlite": lambda _client, folder, _prefix: DatabaseContextStore(db_path=folder / "context.db"),
    "file": lambda _client, folder, prefix: FileContextStore(folder / prefix),
    "outside": lambda _client, _folder, _prefix: document_c.InMemoryContextStore(),
}

CALLS: dict[str, Callable[[ContextStore], Awaitable[Any]]] = {
    "set": lambda store: store.set("a", DOCUMENT),
    "set_many": lambda store: store.set_many({"a": DOCUMENT}),
    "compare_and_set": lambda store: store.compare_and_set("a", DOCUMENT, expected=None),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("cache_kind", ["memory", "redis"])
@pytest.mark.parametrize("db_kind", STORES)
async def test_a_document_is_encoded_once(
    db_kind: str, cache_kind: str, call: str, client: RedisClient, context_file: Path, seen: list[Any]
):
    folder = context_file.parent
    db, cache = STORES[db_kind](client, folder, "db"), STORES[cache_kind](client, folder, "cache")
    store = CacheBackedContextStore(db, cache)
    await store.get("a")
    seen.clear()
    await CALLS[call](store)

    # A Redis hash that needs no fields of its own for the cache is written from the fields of the check.
    assert len(seen) == 1, seen
    seen.clear()
    assert await store.get("a") == DOCUMENT
    await store.aclose()


async def test_a_derived_class_that_changes_what_it_is_given_is_given_a_plain_dictionary():
    class Stamping(InMemoryContextStore):
        async def set(self, key: Any, value: Any, **options: Any) -> None:
            value["stamped"] = True
            await super().set(key, value, **options)

    db = Stamping()
    await CacheBackedContextStore(db, InMemoryContextStore()).set("a", {"n": 1})

    assert await db.get("a") == {"n": 1, "stamped": True}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text() | st.sampled_from(["$", "$set", "a"]), VALUES, max_size=4))
def test_what_is_encoded_by_field_has_the_bytes_of_the_whole_and_of_each_field(document: dict[str, Any]):
    try:
        whole = write_document(document)
    except ContextStoreError:
        with pytest.raises(ContextStoreError):
            encoded(document, by_field=True)
        return
    both = encoded(document, by_field=True)

    assert both.json == encoded(document, by_field=False).json == whole
    assert own_document(both) == own_document(document)
    assert both.fields is None or both.fields == [
        each for name, value in document.items() for each in (name.encode(), codec.encode(value)[0])
    ]


@pytest.mark.parametrize("wrong", [{"a": object()}, {"a": "\ud800"}, {"\ud800": 1}, {1: 1}, [], None])
def test_what_cannot_be_stored_is_refused_as_before(wrong: Any):
    with pytest.raises(ContextStoreError) as expected:
        write_document(wrong)
    with pytest.raises(ContextStoreError) as raised:
        encoded(wrong, by_field=True)

    assert str(raised.value) == str(expected.value)


def test_a_document_that_carries_its_json_is_a_dictionary_for_everybody_else():
    document = encoded({"n": [1]}, by_field=True)

    assert type(document) is EncodedDocument
    assert orjson.loads(document.json) == document == {"n": [1]}
