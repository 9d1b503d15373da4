"""State of apps and users as contexts, which the target may have changed since an earlier run brought it."""

import json
from collections.abc import Mapping
from typing import Any, Final

from agent_service.context.database import DatabaseContextStore
from agent_service.core.errors import AgentServiceError
from agent_service.integrations.importing.digests import digest_of
from agent_service.integrations.importing.report import Change, ImportProblem, Outcome, Problems, RefusedError
from agent_service.integrations.importing.run import Options
from agent_service.integrations.importing.state import database_failures

__all__ = ["StateTarget"]

_IMPORTED: Final = "agent-service-imported"


class StateTarget:
    """Brings documents over into contexts.

    What was brought is remembered by its digest. So state that changed in the source alone is brought again, and state
    that the target has changed is left alone.

    :param run: what tells the source from others.
    """

    def __init__(self, options: Options, run: tuple[str, ...]) -> None:
        self._options = options
        self._run = run
        self._store = DatabaseContextStore(session_factory=options.target().session)

    async def bring(self, place: str, key: tuple[str, ...], state: Mapping[str, Any]) -> Outcome:
        """Store a document under a key, unless it is there already.

        :raises RefusedError: the target has another one, which this source did not bring, or it cannot be stored.
        """
        memory = (_IMPORTED, *self._run, *key)
        with database_failures():
            found = await self._store.get_many([key, memory])
        change = _decide(place, state, found.get(key), found.get(memory))
        if change != "unchanged" and not self._options.dry_run:
            with database_failures():
                await self._write(place, key, memory, state)
        return Outcome(change, 0, 0, Problems())

    async def _write(self, place: str, key: tuple[str, ...], memory: tuple[str, ...], state: Mapping[str, Any]) -> None:
        async with self._options.target().session() as db:
            store = self._store.within(db)
            # Lock the keys, in their order, and look again: others may have written meanwhile.
            for each in sorted([key, memory]):
                await store.update(each, {})
            if _decide(place, state, await store.get(key) or None, await store.get(memory) or None) == "unchanged":
                return
            try:
                await store.set(key, dict(state))
                await store.set(memory, {"digest": _digest(state)})
            except AgentServiceError as exc:
                raise RefusedError(ImportProblem(place, "the target cannot store this state exactly")) from exc
            if _text(await store.get(key) or {}) != _text(state):
                raise RefusedError(ImportProblem(place, "the state read back from the target is not the source's"))


def _decide(
    place: str, state: Mapping[str, Any], stored: Mapping[str, Any] | None, memory: Mapping[str, Any] | None
) -> Change:
    if _text(stored or {}) == _text(state):
        return "unchanged"
    if stored is None:
        return "added"
    if memory is not None and memory.get("digest") == _digest(stored):
        return "extended"
    raise RefusedError(
        ImportProblem(place, "the target holds other state, which this import did not bring; make the two equal")
    )


def _text(state: Mapping[str, Any]) -> str:
    return json.dumps(state, sort_keys=True)


def _digest(state: Mapping[str, Any]) -> str:
    return digest_of(_text(state)).hex()
