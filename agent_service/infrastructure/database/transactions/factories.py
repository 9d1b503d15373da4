"""Session factories of the caller's own, checked when they are given and again when they are called."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import scoped_session, sessionmaker

from agent_service.core.errors import ConfigurationError

__all__ = ["SessionFactory", "require_async_engine", "require_async_sessions"]

SessionFactory: TypeAlias = Callable[[], AbstractAsyncContextManager[AsyncSession]]
"""Returns a new AsyncSession to enter: an ``async_sessionmaker``, or :func:`get_session`."""

_REMEDY = "give an async_sessionmaker of an AsyncEngine, or get_session"


def require_async_sessions(factory: SessionFactory) -> SessionFactory:
    """Return a factory that raises ConfigurationError when a session it makes cannot be awaited.

    :raises ConfigurationError: for a factory that is known to make other sessions, naming its type.
    """
    given: Any = factory
    makes = given.class_ if isinstance(given, sessionmaker) else given if isinstance(given, type) else AsyncSession
    if not callable(given) or isinstance(given, scoped_session) or not issubclass(makes, AsyncSession):
        raise ConfigurationError(f"session_factory is a {_name(given)}, whose sessions cannot be awaited; {_REMEDY}")

    def sessions() -> AbstractAsyncContextManager[AsyncSession]:
        session: Any = given()
        if not hasattr(session, "__aenter__"):
            if hasattr(session, "close"):
                session.close()
            raise ConfigurationError(f"session_factory gave a {_name(session)}, which cannot be awaited; {_REMEDY}")
        return session  # type: ignore[no-any-return] # just asked

    return sessions


def require_async_engine(engine: object) -> None:
    """Refuse what is no engine of asyncio.

    :raises ConfigurationError: naming its type.
    """
    if not isinstance(engine, AsyncEngine):
        raise ConfigurationError(f"engine is a {_name(engine)}, no AsyncEngine; make it with create_async_engine")


def _name(given: object) -> str:
    return given.__name__ if isinstance(given, type) else type(given).__name__
