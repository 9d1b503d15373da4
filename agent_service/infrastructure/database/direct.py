"""A connection beside the pool whose statements go straight to asyncpg, each a transaction by itself: one round trip.

SQLAlchemy opens, replaces and closes it, and reads with it what is not hot.
"""

from collections.abc import Callable, Sequence
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeVar

import asyncpg
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

__all__ = ["DirectConnection"]

P = ParamSpec("P")
T = TypeVar("T")

_LOST_STATES: Final = ("08", "57P")


class DirectConnection:
    """One connection of an engine in AUTOCOMMIT; for one task at a time. After an error close it and take another."""

    def __init__(self, connection: AsyncConnection, driver: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection
        self._driver = driver

    @classmethod
    async def take(cls, engine: AsyncEngine) -> Self:
        """Take one from the engine's pool."""
        connection = await engine.connect()
        driver: Any = (await connection.get_raw_connection()).driver_connection
        return cls(connection, driver)

    @property
    def is_open(self) -> bool:
        """Whether the server has not hung up, as far as is known without asking it."""
        return not self._driver.is_closed()

    async def fetch(self, statement: str, parameters: Sequence[Any]) -> Sequence[Sequence[Any]]:
        """Run one statement and give its rows; it is committed then.

        :raises DBAPIError: the database refused it, or the connection was lost.
        :raises TimeoutError: it did not answer in time. As after a cancellation, the connection is of no use then.
        """
        try:
            rows: Sequence[Sequence[Any]] = await self._driver.fetch(statement, *parameters)
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as exc:
            lost = self._driver.is_closed() or str(getattr(exc, "sqlstate", None)).startswith(_LOST_STATES)
            if lost:
                await self._connection.invalidate(exc)
            raise DBAPIError(statement, None, exc, hide_parameters=True, connection_invalidated=lost) from exc
        except BaseException as exc:
            await self._connection.invalidate(exc)
            raise
        return rows

    async def read(self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that reads with a SQLAlchemy connection."""
        try:
            return await self._connection.run_sync(query, *args, **kwargs)
        finally:
            await self._connection.rollback()  # A transaction of SQLAlchemy's only; the server has begun none.

    async def close(self) -> None:
        """Give the connection back to its pool."""
        await self._connection.close()
