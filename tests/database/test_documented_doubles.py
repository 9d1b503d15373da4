"""A table as the documented example makes it, but without a primary key and with a key twice."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from agent_service.context.database import DatabaseContextStore
from agent_service.core.errors import ContextStoreError


async def test_the_error_says_which_rows_to_remove_and_then_it_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "contexts.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE mine (key TEXT, value TEXT)")
        connection.executemany("INSERT INTO mine VALUES (?, ?)", [("a", '{"n": 1}'), ("b", "{}"), ("a", '{"n": 2}')])
    async with DatabaseContextStore(url=f"sqlite+aiosqlite:///{path}", table="mine") as store:
        with pytest.raises(ContextStoreError, match="holds a key more than once") as caught:
            await store.get("a")
        remedy = str(caught.value).partition("keep the newest: ")[2]
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(remedy)

        assert await store.get("a") == {"n": 2}
        assert await store.get("b") == {}
