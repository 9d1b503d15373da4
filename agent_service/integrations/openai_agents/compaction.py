"""What ``OpenAIResponsesCompactionSession`` asks of the session that it is put around.

Both methods are known to the SDK by their names, and have its shapes.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast
from uuid import UUID

from agent_service.core.errors import SessionConflictError
from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.repositories.session import SessionRepository
from agent_service.integrations.openai_agents.base import SessionBase
from agent_service.integrations.openai_agents.items import role_of
from agent_service.integrations.openai_agents.lasting import to_its_end
from agent_service.integrations.openai_agents.owner import Owner
from agent_service.integrations.openai_agents.reading import between, latest
from agent_service.integrations.openai_agents.stored import item_of, items_of

if TYPE_CHECKING:
    from agent_service.integrations.openai_agents.sdk import Item

__all__ = ["CompactedSession"]

Expired: TypeAlias = Callable[[Any], bool]
"""Tells an item that is to be removed."""


@dataclass(frozen=True)
class Snapshot:
    """The end of a history at one moment, and how to replace a part of it if it is still that end.

    :param complete: whether ``items`` is the whole history.
    """

    items: "list[Item]"
    complete: bool
    replace_suffix: "Callable[[int, list[Item]], Awaitable[bool]]"


@dataclass(frozen=True)
class _End:
    """The last messages, and what their session had counted. Both change with everything that changes a history."""

    messages: list[SessionMessage]
    last_seq: int
    total_messages: int


_NO_END: Final = _End([], 0, 0)
_PAGE: Final = 200
"""Items that are looked through at once for expired ones."""


class CompactedSession(SessionBase):
    """The part of a session that a compaction reads and replaces."""

    async def _get_compaction_snapshot(self, limit: int, *, prune_prefix: Expired | None = None) -> Snapshot | None:
        """Return the last items, and a function that replaces those from a position on, in one transaction.

        It returns False, and changes nothing, where anything was added or removed meanwhile.

        :param prune_prefix: tells items that are to be removed from the beginning of the history as well. What stands
            between them and the replaced items is stored again then, which costs as much as it is long.
        """
        if self._replaced_methods():
            return None
        owner = self._owner(None)
        end = await self._reading(owner, lambda repo, key: _read_end(repo, key, limit + 1), _NO_END)
        shown = end.messages[-limit:] if limit > 0 else []

        async def replace_suffix(start: int, output: "list[Item]") -> bool:
            replaced = shown[start:]
            if not replaced:
                return False
            return await to_its_end(self._replace(owner, end, replaced, output, prune_prefix))

        return Snapshot(items_of(shown), len(end.messages) == len(shown), replace_suffix)

    async def _atomic_replace_items(self, items: "list[Item]") -> bool:
        """Replace the whole history in one transaction; False: this session does not do so."""
        if self._replaced_methods():
            return False

        async def replace(repo: SessionRepository, key: UUID) -> bool:
            await repo.replace_suffix(key, 1, cast("Any", items), role=[role_of(item) for item in items])
            return True

        return await to_its_end(self._writing(self._owner(None), replace))

    def _replaced_methods(self) -> bool:
        """Whether a subclass reads or adds items in a way of its own, which a replacement would pass by."""
        names = ("get_items", "add_items", "pop_item", "clear_session")
        return any(not getattr(type(self), name).__module__.startswith(__package__ or "") for name in names)

    async def _replace(
        self,
        owner: Owner,
        end: _End,
        replaced: Sequence[SessionMessage],
        output: "list[Item]",
        expired: Expired | None,
    ) -> bool:
        async def replace(repo: SessionRepository, key: UUID) -> bool:
            # Removes nothing: it locks what the replacement will lock, and refuses where anything was added.
            await repo.replace_suffix(key, end.last_seq + 1, [], expected_seq=end.last_seq)
            session = await repo.get(key)
            if session is None or session.total_messages != end.total_messages:
                return False
            first, kept = replaced[0].seq, list[SessionMessage]()
            if expired is not None:
                first, kept = await _without_expired(repo, key, first, expired)
            new = [*(message.to_dict() for message in kept), *output]
            roles = [*(message.role for message in kept), *map(role_of, output)]
            await repo.replace_suffix(key, first, cast("Any", new), role=roles)
            return True

        try:
            return await self._changing(owner, replace, nothing=False)
        except SessionConflictError:
            return False


async def _read_end(repo: SessionRepository, key: UUID, wanted: int) -> _End:
    session = await repo.get(key)
    if session is None:
        return _NO_END
    return _End(await latest(repo, key, wanted), session.last_seq, session.total_messages)


async def _without_expired(
    repo: SessionRepository, key: UUID, before_seq: int, expired: Expired
) -> tuple[int, list[SessionMessage]]:
    """Return from which number on to replace so that expired items at the beginning go, and what is to be kept."""
    gone = 0
    while page := await repo.get_messages(key, limit=_PAGE, after_seq=gone, before_seq=before_seq):
        stays = next((message for message in page if not expired(item_of(message))), None)
        gone = page[-1].seq if stays is None else stays.seq - 1
        if stays is not None:
            break
    shown = await repo.get_messages(key, limit=1, after_seq=0)
    if not shown or shown[0].seq > gone:
        return before_seq, []
    return 1, await between(repo, key, gone, before_seq)
