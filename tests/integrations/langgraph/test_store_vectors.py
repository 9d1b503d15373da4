"""Search by vectors, on a PostgreSQL with pgvector; elsewhere it is refused."""

import math
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langgraph.store.base import IndexConfig, PutOp, SearchOp
from langgraph.store.memory import InMemoryStore
from sqlalchemy import text

from agent_service.core.errors import ConfigurationError, SessionValueError
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.integrations.langgraph import AgentServiceStore
from tests.support.depth import examples

WORDS = ("fruit", "apple", "car", "wheel", "sea", "boat")


def vector(text: str) -> list[float]:
    """Count words; what has none of them is a vector of zeros."""
    return [float(text.count(word)) for word in WORDS]


def embed(texts: list[str]) -> list[list[float]]:
    return [vector(each) for each in texts]


def config(fields: list[str] | None = None, gives: Any = embed) -> IndexConfig:
    return IndexConfig(dims=len(WORDS), embed=gives, fields=fields)


@pytest.fixture
async def with_vectors(vector_url: str) -> AsyncIterator[DatabaseManager]:
    database = DatabaseManager(vector_url)
    yield database
    await database.close()


async def rows(database: DatabaseManager) -> int:
    async with database.session() as db:
        return int((await db.execute(text("SELECT count(*) FROM agent_service_store_vectors"))).scalar_one())


async def test_what_is_nearest_comes_first(with_vectors: DatabaseManager) -> None:
    store = AgentServiceStore(with_vectors, index=config(fields=["text"]))
    await store.setup()
    await store.aput(("a",), "apple", {"text": "apple fruit"})
    await store.aput(("a",), "car", {"text": "car wheel"})
    await store.aput(("a",), "both", {"text": "apple car"})
    await store.aput(("b",), "boat", {"text": "apple fruit"})
    await store.aput(("a",), "other", {"n": 1})
    await store.aput(("a",), "hidden", {"text": "apple fruit"}, index=False)

    items = await store.asearch(("a",), query="apple fruit")

    assert [each.key for each in items[:3]] == ["apple", "both", "car"]
    assert items[0].score == pytest.approx(1)
    assert items[1].score == pytest.approx(0.5)
    assert items[2].score == pytest.approx(0)
    assert [(each.key, each.score) for each in items[3:]] == [("hidden", None), ("other", None)]
    assert [each.key for each in await store.asearch(("a",), query="apple", filter={"n": 1})] == ["other"]
    assert [each.key for each in await store.asearch(("a",), query="apple fruit", limit=1, offset=1)] == ["both"]
    await store.aclose()


async def test_the_best_of_several_vectors_counts(with_vectors: DatabaseManager) -> None:
    store = AgentServiceStore(with_vectors, index=config(fields=["parts[*].text", "title"]))
    await store.aput(("a",), "parts", {"title": "sea", "parts": [{"text": "apple"}, {"text": "car"}]})
    await store.aput(("a",), "mixed", {"title": "apple car sea"})

    assert [each.score for each in await store.asearch(("a",), query="no word of these")] == [0, 0]
    for query in ("apple", "car", "sea"):
        items = await store.asearch(("a",), query=query)
        assert [each.key for each in items] == ["parts", "mixed"]
        assert items[0].score == pytest.approx(1)
        assert items[1].score == pytest.approx(1 / math.sqrt(3))
    assert await rows(with_vectors) == 4
    await store.aclose()


async def test_vectors_go_with_what_they_are_of(with_vectors: DatabaseManager) -> None:
    store = AgentServiceStore(with_vectors, index=config(fields=["text", "more"]))
    plain = AgentServiceStore(with_vectors)
    await store.aput(("a",), "k", {"text": "apple", "more": "car"})
    await store.aput(("a",), "l", {"text": "apple"}, index=["text"])
    assert await rows(with_vectors) == 3

    await store.aput(("a",), "k", {"text": "sea"})
    assert await rows(with_vectors) == 2
    assert [each.score for each in await store.asearch(("a",), query="sea")] == [pytest.approx(1), pytest.approx(0)]
    await plain.aput(("a",), "k", {"text": "boat"})
    assert await rows(with_vectors) == 1
    await store.adelete(("a",), "l")
    assert await rows(with_vectors) == 0
    for each in (store, plain):
        await each.aclose()


async def test_texts_are_embedded_once_and_only_what_is_stored(with_vectors: DatabaseManager) -> None:
    asked: list[str] = []

    async def count(texts: list[str]) -> list[list[float]]:
        asked.extend(texts)
        return embed(texts)

    store = AgentServiceStore(with_vectors, index=config(["t"], count))
    await store.abatch(
        [
            PutOp(("a",), "k", {"t": "apple"}),
            PutOp(("a",), "l", {"t": "apple"}),
            PutOp(("a",), "m", {"t": "never"}),
            PutOp(("a",), "m", {"t": "car"}),
            PutOp(("a",), "n", None),
            SearchOp(("a",), query="sea"),
            SearchOp(("b",), query="sea"),
        ]
    )

    assert sorted(asked) == ["apple", "car", "sea"]
    await store.aclose()


NO_VECTORS: list[tuple[Callable[[list[str]], Any], str]] = [
    (lambda texts: [[1.0]] * len(texts), "1 dimensions, and index says dims 6"),
    (lambda _: [], "0 vectors for 1 texts"),
    (lambda texts: [[math.nan] * 6] * len(texts), "NaN"),
    (lambda texts: [["x"] * 6] * len(texts), "no number"),
    (lambda texts: ["abcdef"] * len(texts), "lists of numbers"),
]


async def test_what_is_no_vector_is_refused_before_anything_is_written(with_vectors: DatabaseManager) -> None:
    for gives, match in NO_VECTORS:
        store = AgentServiceStore(with_vectors, index=config(gives=gives))

        with pytest.raises(SessionValueError, match=match):
            await store.aput(("a",), "k", {"t": "apple"})

        assert await store.aget(("a",), "k") is None
        await store.aclose()


QUERIES = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join)
TEXTS = st.lists(st.sampled_from([*WORDS, "other"]), min_size=1, max_size=4).map(" ".join)


@settings(max_examples=examples(8, 200), suppress_health_check=list(HealthCheck))
@given(texts=st.lists(TEXTS, min_size=1, max_size=6), query=QUERIES)
async def test_the_store_in_memory_gives_the_same_scores(
    with_vectors: DatabaseManager, texts: list[str], query: str
) -> None:
    ours, theirs = (
        AgentServiceStore(with_vectors, index=config(fields=["t"])),
        InMemoryStore(index=config(fields=["t"])),
    )
    await ours.aclear(())
    # Of equal texts in one batch the one in memory loses vectors, so each is put alone.
    for number, each in enumerate(texts):
        for store in (ours, theirs):
            await store.aput(("a",), str(number), {"t": each})

    mine, other = [await store.asearch(("a",), query=query) for store in (ours, theirs)]

    scores = {each.key: each.score for each in other}
    assert {each.key: each.score for each in mine} == pytest.approx(scores, abs=1e-6)
    assert [each.score for each in mine] == pytest.approx([each.score for each in other], abs=1e-6)
    await ours.aclose()


async def test_without_the_extension_an_index_is_refused(database: DatabaseManager) -> None:
    store = AgentServiceStore(database, index=config())

    for call in (store.setup(), store.aput(("a",), "k", {"t": "apple"}), store.asearch(("a",), query="apple")):
        with pytest.raises(ConfigurationError, match="SQLite compares no vectors" if database.embedded else "pgvector"):
            await call
    await store.aclose()
