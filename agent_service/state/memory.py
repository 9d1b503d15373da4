"""State in this process's memory."""

from agent_service.context.memory import InMemoryContextStore
from agent_service.state.interface import ContextT
from agent_service.state.over_context import ContextStateStore

__all__ = ["InMemoryStateStore"]


class InMemoryStateStore(ContextStateStore[ContextT]):
    """Keeps contexts until the process ends, for development and tests. Threads and event loops may share it.

    :param model: the class of the contexts; None: CoachContext.
    """

    def __init__(self, *, model: type[ContextT] | None = None) -> None:
        super().__init__(InMemoryContextStore(), model=model)
