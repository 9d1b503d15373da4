"""Other session stores, behind one face for the benchmarks. They come with the ``bench`` extra."""

import importlib.util
from types import TracebackType
from typing import Any, ClassVar, Self

from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.append import MESSAGE

__all__ = ["Adk", "OpenAiSqlAlchemy", "OpenAiSqlite", "Peer", "installed"]


class Peer:
    """A store with one session for each of ``tasks`` tasks; an async context manager."""

    name: ClassVar[str]
    package: ClassVar[str]
    module: ClassVar[str]

    def __init__(self, url: str, tasks: int) -> None:
        self._url = url
        self._tasks = tasks
        self._sessions: list[Any] = []

    async def append(self, task: int) -> None:
        """Store a message and wait until it is."""
        await self._sessions[task].add_items([MESSAGE])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None


def installed(peer: type[Peer]) -> bool:
    """Whether a peer's package is here."""
    try:
        return importlib.util.find_spec(peer.module) is not None
    except ModuleNotFoundError:  # of the package above it
        return False


class OpenAiSqlAlchemy(Peer):
    """SQLAlchemySession of the OpenAI Agents SDK."""

    name = "OpenAI Agents SDK, SQLAlchemySession"
    package = "openai-agents[sqlalchemy]"
    module = "agents"

    async def __aenter__(self) -> Self:
        from agents.extensions.memory import SQLAlchemySession  # noqa: PLC0415

        self._engine = create_async_engine(self._url, pool_size=5, max_overflow=10)
        self._sessions = [
            SQLAlchemySession(f"{self._tasks}-{task}", engine=self._engine, create_tables=True)
            for task in range(self._tasks)
        ]
        await self.append(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._engine.dispose()


class OpenAiSqlite(Peer):
    """SQLiteSession of the OpenAI Agents SDK; the URL is a file."""

    name = "OpenAI Agents SDK, SQLiteSession"
    package = "openai-agents"
    module = "agents"

    async def __aenter__(self) -> Self:
        from agents import SQLiteSession  # noqa: PLC0415

        self._sessions = [SQLiteSession(f"{task}", self._url) for task in range(self._tasks)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for each in self._sessions:
            each.close()


class Adk(Peer):
    """DatabaseSessionService of the Agent Development Kit."""

    name = "Google ADK, DatabaseSessionService"
    package = "google-adk"
    module = "google.adk"

    async def __aenter__(self) -> Self:
        from google.adk.events import Event  # noqa: PLC0415
        from google.adk.sessions import DatabaseSessionService  # noqa: PLC0415
        from google.genai.types import Content, Part  # noqa: PLC0415

        self._service = DatabaseSessionService(self._url)
        self._sessions = [
            await self._service.create_session(app_name="bench", user_id=f"{self._tasks}-{task}")
            for task in range(self._tasks)
        ]
        self._event = lambda: Event(author="user", content=Content(role="user", parts=[Part(text=MESSAGE["content"])]))
        return self

    async def append(self, task: int) -> None:
        await self._service.append_event(self._sessions[task], self._event())

    async def __aexit__(self, *_: object) -> None:
        await self._service.db_engine.dispose()
