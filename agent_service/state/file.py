"""State in a folder."""

import os

from agent_service.context.files.store import FileContextStore
from agent_service.state.interface import ContextT
from agent_service.state.over_context import ContextStateStore

__all__ = ["FileStateStore"]


class FileStateStore(ContextStateStore[ContextT]):
    """Keeps contexts in a folder, one JSON document per user, shared by all processes of one machine.

    Whatever fails at any moment, each file is the old or the new one; see
    :class:`~agent_service.context.files.store.FileContextStore`. A damaged file is an error that names it.

    :param directory: created by the first write; only this process's user can access it.
    :param model: the class of the contexts; None: CoachContext.
    :param timeout: seconds that a write waits for other writes of its user, and a read for the disk.
    """

    def __init__(
        self, directory: str | os.PathLike[str], *, model: type[ContextT] | None = None, timeout: float = 10.0
    ) -> None:
        self._files = FileContextStore(directory, timeout=timeout)
        super().__init__(self._files, model=model)

    def _place(self, user_id: str) -> str:
        return f" in {self._files.path_of(user_id)}"

    async def aclose(self) -> None:
        await self._files.aclose()
