"""The state store contract: obligations of every backend."""

from abc import ABC, abstractmethod
from typing import Any, Generic, Self

from typing_extensions import TypeVar

from agent_service.core.errors import StateStoreError
from agent_service.state.models import AgentContext, CoachContext

__all__ = ["ContextT", "StateStore"]

ContextT = TypeVar("ContextT", bound=AgentContext[Any, Any], default=CoachContext)


class StateStore(ABC, Generic[ContextT]):
    """One typed context per user, the same on every backend.

    * **Absence** is None, never an error; deleting what is not there is no error.
    * **No aliasing.** Changing a context after saving it, or one that was loaded, changes nothing until it is saved.
    * **Faithful.** A saved context loads again as it was, without validation. One that could not is refused by the
      save, and the old one stays. Stored data that does not fit the model is an error at loading, never None or a
      guess.
    * **Versions.** Each save stores the version after the present one and sets it on the saved context. A deleted user
      starts again at 1.
    * **Atomicity.** A save happens as a whole or not at all. Of any number of concurrent saves that expect the same
      version one wins; from several processes too where the backend is shared.
    * **User ids** are any text but the empty one, told apart exactly, and cannot reach out of the store. What a backend
      cannot keep (lone surrogates; for DynamoDB more than 2,048 bytes) is refused.
    * **Errors.** Every failure is a :class:`~agent_service.core.errors.StateStoreError` with its cause chained.

    A store of your own only needs :meth:`load_context` and :meth:`save_context`; it then refuses the other calls.
    """

    @abstractmethod
    async def load_context(self, user_id: str) -> ContextT | None:
        """Return the context of a user, brought up to the model's present schema version, or None.

        :raises StateStoreError: also if the stored data does not fit the model; it names the user and the reason.
        """

    @abstractmethod
    async def save_context(self, context: ContextT, expected_version: int | None = None) -> None:
        """Store a context in place of its user's present one.

        :param expected_version: save only if this version is stored; 0: if nothing is. Pass the ``version`` of the
            loaded context, and no save of another writer is lost. None: the last writer wins.
        :raises StateConflictError: if another version is stored; load again, repeat the change and save. If a save
            failed with its outcome unknown (a lost connection), the next save may find that save's version.
        """

    async def delete_context(self, user_id: str) -> None:
        """Remove the context of a user."""
        raise StateStoreError(
            f"{type(self).__name__} cannot delete the context of user {user_id!a:.80}: it has no method delete_context"
        )

    async def list_user_ids(self) -> list[str]:
        """Return the id of every user with a context, each once, in no order. Cost grows with the store."""
        raise StateStoreError(f"{type(self).__name__} cannot list its users: it has no method list_user_ids")

    async def aclose(self) -> None:
        """Close what this store opened itself, and nothing that it was given. Calling it again does nothing."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
