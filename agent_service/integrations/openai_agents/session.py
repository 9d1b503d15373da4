"""The session that a Runner is given."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid4

from agent_service.core.errors import SessionNotFoundError, SessionValueError
from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.repositories.session import SessionRepository
from agent_service.integrations.openai_agents.compaction import CompactedSession
from agent_service.integrations.openai_agents.following import FollowedSession
from agent_service.integrations.openai_agents.forking import ForkedSession
from agent_service.integrations.openai_agents.items import client_ids_of, role_of
from agent_service.integrations.openai_agents.lasting import to_its_end
from agent_service.integrations.openai_agents.owner import Owner
from agent_service.integrations.openai_agents.reading import latest
from agent_service.integrations.openai_agents.stored import item_of, items_of
from agent_service.integrations.openai_agents.turns import whole_turns as without_open_turns
from agent_service.integrations.openai_agents.usage import USAGE, MeasuredSession

if TYPE_CHECKING:
    from agent_service.integrations.openai_agents.sdk import Item, Wrapper

__all__ = ["DatabaseSession"]

_ONCE: Final = "once:"
"""How the client id of an item without an identity begins. A writer that repeats an append tells it by that id."""


class DatabaseSession(CompactedSession, ForkedSession, FollowedSession, MeasuredSession):
    """A conversation of the OpenAI Agents SDK in this package's database: its ``Session`` protocol, and more.

    ::

        session = DatabaseSession("chat 1", user_id="ada")
        result = await Runner.run(agent, "When does the train leave?", session=session)

    It is stored with the first item. Making an object of this class costs nothing: make one for each request. Items are
    in the order in which they were committed, whichever process added them.

    :param session_id: the conversation's id, 1 to 255 characters, unique within its tenant.
    :param user_id: whose conversation it is, or a function that returns that from the context object of a run. The
        conversation of another user is refused.
    :param tenant_id: whose database this is, or such a function.
    :param agent_id: the agent to note in a new session.
    :param database: where it is stored; None is the database of the settings. It is not closed here.
    :param writer: an open writer of the same database, which commits the items of many sessions together.
    :param session_settings: the SDK's; ``limit`` is how many items ``get_items`` returns where it is given no limit.
    :raises SessionValueError: an argument cannot be used; it is named.

    Every method raises SessionConflictError where the session is another user's, DatabaseUnavailableError when the
    database cannot be reached, and DatabaseError when it fails otherwise. A session that was deleted has no items, and
    adding some is a SessionConflictError.
    """

    async def get_items(
        self, limit: int | None = None, *, wrapper: "Wrapper | None" = None, whole_turns: bool = False
    ) -> "list[Item]":
        """Return the latest items in their order, as they were at one moment.

        The cost is that of the items that are returned, however long the session is.

        :param limit: how many at most; None is the session's setting, which may be all. 0 and less give none.
        :param wrapper: the run's, which the Runner passes.
        :param whole_turns: leave out calls without an output, outputs without a call, and reasoning without the item
            that it led to; and where ``limit`` cuts the history, also what stands before the next message of a user.
        """
        wanted, owner = self._limit(limit), self._owner(wrapper)
        if wanted is not None and wanted <= 0:
            return []
        # One more says whether the history begins before.
        more = None if wanted is None else wanted + 1
        read: list[SessionMessage] = await self._reading(owner, lambda repo, key: latest(repo, key, more), [])
        kept = read if wanted is None else read[-wanted:]
        return items_of(without_open_turns(kept, from_the_start=len(kept) == len(read)) if whole_turns else kept)

    async def add_items(self, items: "list[Item]", *, wrapper: "Wrapper | None" = None) -> None:
        """Add items at the end, all or none, and return after the commit.

        An item that was added before with the same id and content is not added again; see
        :func:`~agent_service.integrations.openai_agents.items.client_id_of`. Once it has begun it ends, although the
        caller is cancelled.

        :raises SessionValueError: an item cannot be kept exactly; nothing was added.
        """
        given = _require_items(items)
        if given:
            await to_its_end(self._add(self._owner(wrapper), given))

    async def pop_item(self, *, wrapper: "Wrapper | None" = None) -> "Item | None":
        """Remove the last item and return it, or None where there is none. Two callers never get the same one."""
        owner = self._owner(wrapper)
        popped: SessionMessage | None = await to_its_end(
            self._changing(owner, lambda repo, key: repo.pop_message(key), None)
        )
        return None if popped is None else item_of(popped)

    async def clear_session(self, *, wrapper: "Wrapper | None" = None) -> None:
        """Remove all items and what was noted of usage. The session stays, with its title, context and own id."""
        await to_its_end(self._changing(self._owner(wrapper), _clear, None))

    async def _add(self, owner: Owner, items: Sequence[Mapping[str, Any]]) -> None:
        roles, ids = [role_of(item) for item in items], client_ids_of(items)
        if self._writer is None:
            await self._writing(
                owner, lambda repo, key: repo.add_messages_to_session(key, items, role=roles, client_ids=ids)
            )
            return
        # The writer may send them again after an outage, and each is to be recognized then.
        told_apart = [each or f"{_ONCE}{uuid4().hex}" for each in ids]
        for last in (False, True):
            key = await self._existing(owner)
            try:
                await self._writer.append_many(key, items, role=roles, client_ids=told_apart, tenant_id=owner.tenant_id)
            except SessionNotFoundError:
                self._forget()
                if last:
                    raise
            else:
                return

    def _limit(self, limit: int | None) -> int | None:
        if limit is None and self._settings is not None:
            limit = self._settings.limit
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool)):
            raise SessionValueError(f"limit must be an integer or None, got {limit!r:.80}")
        return limit


def _require_items(items: Any) -> list[Mapping[str, Any]]:
    if isinstance(items, str | bytes | Mapping) or not isinstance(items, Sequence):
        raise SessionValueError(f"items must be a list of dicts, got {type(items).__name__}")
    for index, item in enumerate(items):
        if not isinstance(item, Mapping):
            raise SessionValueError(
                f"items[{index}] must be a dict, got {type(item).__name__}; give item.model_dump(exclude_unset=True)"
            )
    return list(items)


async def _clear(repo: SessionRepository, key: UUID) -> None:
    await repo.clear_messages(key)
    session = await repo.get(key)
    if session is not None and USAGE in session.session_metadata:
        await repo.update_session_metadata(key, {}, delete_keys=[USAGE])
