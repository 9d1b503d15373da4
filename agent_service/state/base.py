"""The base of state stores: models and versions, over four primitives of a backend."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from agent_service.core.errors import AgentServiceError, StateConflictError, StateStoreError
from agent_service.core.store_metrics import Measured
from agent_service.state.documents import dump_context, read_context, stored_version
from agent_service.state.evolution import schema_version_of
from agent_service.state.interface import ContextT, StateStore
from agent_service.state.models import CoachContext

__all__ = ["VersionedStateStore"]


class VersionedStateStore(StateStore[ContextT]):
    """A store over a backend that can replace a document if its version is the expected one.

    Loading, and saving with ``expected_version``, take one call of the backend each. Saving without it reads the
    version first, and again after each save of another writer that came between.

    :param model: the class of the contexts; None: :class:`CoachContext`. Exactly this class is saved, no subclass.
    :raises ConfigurationError: if it is no model of a context.
    """

    def __init__(self, *, model: type[ContextT] | None = None) -> None:
        self._model = cast("type[ContextT]", CoachContext) if model is None else model
        schema_version_of(self._model)

    @abstractmethod
    async def _read(self, user_id: str) -> Mapping[str, Any] | None:
        """Return the stored document, or None."""

    @abstractmethod
    async def _replace(self, user_id: str, document: Mapping[str, Any], present: int) -> bool:
        """Store a document if the stored one has the version ``present`` (0: there is none), atomically."""

    @abstractmethod
    async def _remove(self, user_id: str) -> None:
        """Remove the stored document."""

    @abstractmethod
    async def _user_ids(self) -> list[str]:
        """Return the users with a stored document."""

    def _place(self, user_id: str) -> str:  # noqa: ARG002
        """Return where a user's context is, for errors: empty, or " in" and what a person would look for."""
        return ""

    async def load_context(self, user_id: str) -> ContextT | None:
        with self._errors("load", user_id):
            document = await self._read(user_id)
            return None if document is None else read_context(self._model, user_id, document)

    async def save_context(self, context: ContextT, expected_version: int | None = None) -> None:
        if type(context) is not self._model:
            raise StateStoreError(
                f"context must be a {self._model.__name__}, not a {type(context).__name__}; "
                "give the store the model that it is to keep"
            )
        user_id: Any = getattr(context, "user_id", None)
        with self._errors("save", user_id):
            document = dump_context(context, self._model)
            if expected_version is None:
                version = await self._save_last(user_id, document)
            else:
                version = await self._save_expected(user_id, document, expected_version)
        # Without the model's validators: the save has happened and must not raise any more.
        vars(context)["version"] = version

    async def _save_last(self, user_id: str, document: Mapping[str, Any]) -> int:
        while True:
            present = stored_version(await self._read(user_id))
            if await self._replace(user_id, {**document, "version": present + 1}, present):
                return present + 1

    async def _save_expected(self, user_id: str, document: Mapping[str, Any], expected: int) -> int:
        if isinstance(expected, bool) or not isinstance(expected, int) or expected < 0:
            raise StateStoreError(
                f"expected_version must be an int of at least 0, got {expected!r:.80}; pass the version that was loaded"
            )
        if not await self._replace(user_id, {**document, "version": expected + 1}, expected):
            raise StateConflictError(
                f"the context of user {user_id!a:.80} is not at version {expected} any more; "
                "load it, redo the change and save that"
            )
        return expected + 1

    async def delete_context(self, user_id: str) -> None:
        with self._errors("delete", user_id):
            await self._remove(user_id)

    async def list_user_ids(self) -> list[str]:
        try:
            with Measured(type(self).__name__):
                return await self._user_ids()
        except StateStoreError:
            raise
        except (AgentServiceError, OSError) as exc:
            raise StateStoreError(f"could not list the users: {exc}") from exc
        except Exception as exc:  # an error of a driver, or of a store that others wrote
            raise StateStoreError(f"could not list the users: {self._raised(exc)}") from exc

    @contextmanager
    def _errors(self, action: str, user_id: Any) -> Iterator[None]:
        """Refuse an unusable user id; name the user and the action in every error."""
        _require_user_id(user_id)
        what = f"could not {action} the context of user {user_id!a:.80}{self._place(user_id)}"
        try:
            with Measured(type(self).__name__):
                yield
        except StateConflictError:
            raise
        except StateStoreError as exc:
            raise StateStoreError(f"{what}: {exc}") from exc.__cause__
        except (AgentServiceError, OSError) as exc:
            raise StateStoreError(f"{what}: {exc}") from exc
        except Exception as exc:  # an error of a driver, or of a store that others wrote
            raise StateStoreError(f"{what}: {self._raised(exc)}") from exc

    def _raised(self, exc: Exception) -> str:
        """Return a text for what a driver, or a store that others wrote, has raised."""
        return f"{type(self).__name__} raised {type(exc).__name__}: {exc}"


def _require_user_id(user_id: Any) -> None:
    if not isinstance(user_id, str) or not user_id:
        raise StateStoreError(f"user_id must be text and not empty, got {user_id!r:.80}; name the user")
    try:
        user_id.encode()
    except UnicodeEncodeError as exc:
        raise StateStoreError(
            f"user_id {user_id!a:.80} holds a lone surrogate at position {exc.start}; it has no UTF-8 form, replace it"
        ) from exc
