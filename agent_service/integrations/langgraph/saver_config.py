"""Which checkpoint a config of LangGraph names."""

from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import UUID

from langchain_core.runnables import RunnableConfig

from agent_service.core.errors import SessionValueError
from agent_service.infrastructure.database.checkpoints.changes import (
    require_checkpoint_id,
    require_namespace,
    require_thread_id,
)

__all__ = ["Address", "thread_name"]


class Address(NamedTuple):
    """A thread, a namespace of it, and a checkpoint in it; None: the latest, or where one is put: without a parent."""

    thread_id: str
    namespace: str
    checkpoint_id: str | None

    @classmethod
    def of(cls, config: RunnableConfig) -> "Address":
        """Return what a config names.

        :raises SessionValueError: there is no thread_id, or something else that cannot be used; it is named.
        """
        given = _configurable(config)
        checkpoint_id = given.get("checkpoint_id")
        return cls(
            thread_name(given.get("thread_id")),
            require_namespace(given.get("checkpoint_ns") or ""),
            require_checkpoint_id(str(checkpoint_id)) if checkpoint_id else None,
        )

    @classmethod
    def namespace_of(cls, config: RunnableConfig) -> str | None:
        """Return the namespace that a config names; None: none, which means all in a listing."""
        namespace = _configurable(config).get("checkpoint_ns")
        return None if namespace is None else require_namespace(namespace)

    def config(self, checkpoint_id: str) -> RunnableConfig:
        """Return the config of a checkpoint in this namespace."""
        return {
            "configurable": {
                "thread_id": self.thread_id,
                "checkpoint_ns": self.namespace,
                "checkpoint_id": checkpoint_id,
            }
        }


def thread_name(given: Any) -> str:
    """Return the id of a thread as text; UUIDs and integers are taken as they are written.

    :raises SessionValueError: it is none.
    """
    if given is None:
        raise SessionValueError('config has no thread_id; call with {"configurable": {"thread_id": "..."}}')
    return require_thread_id(str(given) if isinstance(given, UUID | int) and not isinstance(given, bool) else given)


def _configurable(config: RunnableConfig) -> Mapping[str, Any]:
    found = config.get("configurable") if isinstance(config, Mapping) else None
    if not isinstance(found, Mapping):
        raise SessionValueError('config has no configurable; call with {"configurable": {"thread_id": "..."}}')
    return found
