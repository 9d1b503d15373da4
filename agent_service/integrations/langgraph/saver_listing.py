"""A listing of checkpoints, page by page."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple

from agent_service.core.errors import SessionValueError
from agent_service.infrastructure.database.checkpoints.changes import require_checkpoint_id
from agent_service.infrastructure.database.checkpoints.reading import Question
from agent_service.infrastructure.database.checkpoints.store import CheckpointStore
from agent_service.integrations.langgraph.saver_config import Address
from agent_service.integrations.langgraph.saver_encoding import Codec, searchable

__all__ = ["Listing"]

_PAGE: Final = 50
"""Checkpoints, with all their values, that are read at once."""


class Listing:
    """Finds the next checkpoints at each call. Between two calls it holds nothing of the database.

    :raises SessionValueError: an argument cannot be used; it is named.
    """

    def __init__(
        self,
        codec: Codec,
        tenant_id: str,
        config: RunnableConfig | None,
        *,
        conditions: Mapping[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> None:
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool)):
            raise SessionValueError(f"limit must be an integer or None, got {limit!r:.80}")
        if conditions is not None and not isinstance(conditions, Mapping):
            raise SessionValueError(f"filter must be a dict or None, not {type(conditions).__name__}")
        self._codec = codec
        self._tenant_id = tenant_id
        self._conditions = dict(conditions or {})
        self._left = limit
        self.over = limit is not None and limit <= 0
        """Whether everything was found."""
        address = Address.of(config) if config else None
        bound = (before.get("configurable") or {}).get("checkpoint_id") if before else None
        # The database compares texts; the rest is compared here.
        facts = {name: each for name, each in self._conditions.items() if searchable(name) and searchable(each)}
        self._question = Question(
            thread_id=None if address is None else address.thread_id,
            namespace=Address.namespace_of(config) if config else None,
            checkpoint_id=None if address is None else address.checkpoint_id,
            before=require_checkpoint_id(str(bound)) if bound else None,
            facts=facts,
        )
        self._in_database = len(facts) == len(self._conditions)

    async def next(self, store: CheckpointStore) -> list[CheckpointTuple]:
        """Return some more, or none, where a page had nothing that was asked for."""
        size = _PAGE if self._left is None or not self._in_database else min(self._left, _PAGE)
        page = await store.page(self._tenant_id, self._question, size)
        found: list[CheckpointTuple] = []
        for stored in page:
            metadata = self._codec.metadata_of(stored)
            if all(dict(metadata).get(name) == value for name, value in self._conditions.items()):
                found.append(self._codec.tuple_of(stored, metadata))
                if self._left is not None and len(found) == self._left:
                    break
        if self._left is not None:
            self._left -= len(found)
        self.over = len(page) < size or self._left == 0
        if page:
            self._question = replace(self._question, after=page[-1].place)
        return found
