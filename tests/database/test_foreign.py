"""Databases of other libraries: read in pages of bounded size, as of one moment, and never written to."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from agent_service.core.errors import ConfigurationError, DatabaseError
from agent_service.infrastructure.database.foreign import SourceDatabase, reading


@pytest.fixture(params=["sqlite", "postgres"])
async def theirs(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    """A database with 23 rows in two groups, of each engine."""
    if request.param == "sqlite":
        url = f"sqlite+aiosqlite:///{tmp_path / 'theirs.db'}"
    else:
        url = request.getfixturevalue("empty_postgres_url")
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        if request.param == "sqlite":
            await connection.execute(text("PRAGMA journal_mode = WAL"))  # others write while somebody reads
        await connection.execute(
            text("CREATE TABLE things (id INTEGER PRIMARY KEY, kind TEXT, at TIMESTAMP, said TEXT)")
        )
        rows = [f"({n}, '{'a' if n % 10 else 'b'}', '2026-01-{1 + n % 3:02} 00:00:00', '{'x' * n}')" for n in range(23)]
        await connection.execute(text(f"INSERT INTO things VALUES {', '.join(rows)}"))
        await connection.execute(text("CREATE TABLE others (kind TEXT)"))
        await connection.execute(text("INSERT INTO others VALUES ('c'), ('a'), ('0'), ('a')"))
        await connection.commit()
    yield engine
    await engine.dispose()


@pytest.fixture
async def source(theirs: AsyncEngine) -> AsyncIterator[SourceDatabase]:
    opened = SourceDatabase(theirs.url.render_as_string(hide_password=False))
    yield opened
    await opened.close()


ORDER = [n for remainder in range(3) for n in range(23) if n % 3 == remainder and n % 10]


@pytest.mark.parametrize("weigh", [(), ("said",)])
@pytest.mark.parametrize("rows", [1, 2, 20, 21, 500])
async def test_pages_of_any_size_give_all_rows_once_in_their_order(
    source: SourceDatabase, monkeypatch: pytest.MonkeyPatch, rows: int, weigh: tuple[str, ...]
):
    monkeypatch.setattr(reading, "PAGE_ROWS", rows)
    things = await source.table("things", "id", "said")

    async with source.reading() as opened:
        walk = opened.walk(things, ("at", "id", "said"), where={"kind": "a"}, order=("at", "id"), weigh=weigh)
        found = [row async for row in walk]

    assert [row["id"] for row in found] == ORDER
    assert all(row["said"] == "x" * row["id"] for row in found)


@pytest.mark.parametrize("size", [1, 40, 1_000_000])
async def test_a_page_holds_as_many_rows_as_its_budget_and_always_one(
    source: SourceDatabase, monkeypatch: pytest.MonkeyPatch, size: int
):
    monkeypatch.setattr(reading, "PAGE_BYTES", size)
    things = await source.table("things")
    pages: list[int] = []
    page = reading.Reading._page

    async def counted(*given: object, **named: object) -> object:
        found = await page(*given, **named)  # type: ignore[arg-type]
        pages.append(len(found.rows))
        return found

    monkeypatch.setattr(reading.Reading, "_page", counted)

    async with source.reading() as opened:
        walk = opened.walk(things, ("id", "said"), where={}, order=("id",), weigh=("said",))
        found = [row["id"] async for row in walk]

    assert found == list(range(23))
    if size == 1:
        # The first row is empty on SQLite, so that there is room for another one.
        assert max(pages) <= 2
    elif size == 40:
        assert 1 < len(pages) < 23
    else:
        assert pages == [23]


async def test_keys_of_several_tables_come_once_in_their_order(source: SourceDatabase):
    things, others = await source.table("things"), await source.table("others")
    places = [(things, ("kind",)), (others, ("kind",))]

    async with source.reading() as opened:
        first = await opened.keys(places, after=None, limit=2)
        rest = await opened.keys(places, after=first[-1], limit=10)
        alone = await opened.keys([(others, ("kind",))], after=("0",), limit=10)
        counts = (await opened.count(things), await opened.count(others, "kind"))

    assert [*first, *rest] == [("0",), ("a",), ("b",), ("c",)]
    assert alone == [("a",), ("c",)]
    assert counts == (23, 3)


async def test_a_transaction_sees_one_moment(source: SourceDatabase, theirs: AsyncEngine):
    others = await source.table("others")

    async with source.reading() as opened:
        before = await opened.count(others)
        async with theirs.begin() as connection:
            await connection.execute(text("INSERT INTO others VALUES ('new')"))
        after = await opened.count(others)

    assert before == after == 4


async def test_nothing_can_be_written(source: SourceDatabase):
    await source.table("things")

    with pytest.raises(DatabaseError):
        async with source.reading() as opened:
            await opened._connection.execute(text("DELETE FROM things"))
    with pytest.raises(DatabaseError):
        async with source.reading() as opened:
            await opened._connection.execute(text("CREATE TABLE more (id INTEGER)"))


async def test_tables_that_are_not_there_or_lack_columns_are_named(source: SourceDatabase):
    with pytest.raises(ConfigurationError, match="no table 'nothing'; it has 'others', 'things'"):
        await source.table("nothing")
    with pytest.raises(
        ConfigurationError, match="has no column 'more', so it is another one; it has at, id, kind, said"
    ):
        await source.table("things", "id", "more")


async def test_a_file_by_its_uri_is_read(tmp_path: Path):
    path = tmp_path / "theirs.db"
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE others (kind TEXT)"))
    await engine.dispose()
    source = SourceDatabase(f"sqlite:///file:{path}?uri=true&mode=rw")

    async with source.reading() as opened:
        assert await opened.count(await source.table("others")) == 0

    assert source.place == f"sqlite+aiosqlite:///{path}"
    await source.close()
