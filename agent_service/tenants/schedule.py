"""The schedule of triggers in Redis: when each is due, which worker handles it, how it ended.

Invariants:

1. Every trigger is in a sorted set, ordered by the time at which it may be claimed. Nothing depends on expiry events,
   which come late and get lost.
2. A claim moves that time to the end of its lease. A worker that stops renewing loses the trigger to the next worker.
3. Each claim has a token. Setting a trigger again clears the token, so that the end of the old handling cannot end the
   new trigger.
4. A trigger that is due earlier than runners know adds an entry to a stream, which wakes them.
5. All times are those of the Redis server, so worker clocks do not matter.
6. Every step is one script. The keys of all triggers under one prefix share a slot, so a cluster keeps them on one
   node.
"""

import logging
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

from agent_service.core.errors import UndecodableError
from agent_service.core.milliseconds import to_milliseconds
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.scripts import Script, load_script
from agent_service.infrastructure.redis.transport.base import Argument
from agent_service.tenants.keys import KeyFactory, decode_name, encode_component

__all__ = ["LONGEST_SLEEP", "DeadTrigger", "Trigger", "TriggerClaim", "TriggerSchedule"]

logger = logging.getLogger("agent_service.tenants")

_SET = load_script("trigger", "trigger_set")
_DELETE = load_script("trigger", "trigger_delete")
_CLAIM = load_script("trigger", "trigger_claim")
_DONE = load_script("trigger", "trigger_done")
_RETRY = load_script("trigger", "trigger_retry")
_BURY = load_script("trigger", "trigger_bury")
_RENEW = load_script("trigger", "trigger_renew")
_DUE = load_script("held", "trigger_due")

_TAG: Final = [("scope", "trigger")]
LONGEST_SLEEP: Final = 10.0
"""Seconds between two checks of a runner that is woken if something becomes due earlier than it knows."""
_PAGE: Final = 1000
"""Entries that the server returns per step of an inspection."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """An action to be done for an identifier."""

    tenant: str
    action: str
    identifier: str
    due_at: datetime
    """UTC, by the clock of Redis."""
    attempt: int
    """For a handler: 1 at the first attempt. In a list: attempts so far."""


@dataclass(frozen=True, slots=True)
class DeadTrigger(Trigger):
    """A trigger that failed for the last time; it stays until it is set again or deleted."""

    died_at: datetime
    error: str
    """Type and message of the last failure."""


@dataclass(frozen=True, slots=True)
class TriggerClaim:
    """A trigger and the token by which one worker holds it."""

    trigger: Trigger
    token: str = field(repr=False)


class TriggerSchedule:
    """The operations on the schedule. They raise ``RedisOperationError`` kinds. Those on a claim return False and
    change nothing if it is no longer valid.

    :param client: of the running event loop.
    """

    def __init__(self, client: RedisClient, keys: KeyFactory) -> None:
        self._client = client
        self._keys = keys

    async def set(self, tenant: str, action: str, identifier: str, milliseconds: int) -> None:
        """Make the trigger due after this time, whatever its state was."""
        encode_component(identifier, "identifier")
        await self._run(_SET, tenant, action, identifier, milliseconds)

    async def delete(self, tenant: str, action: str, identifier: str) -> bool:
        """Delete the trigger, waiting or dead; return whether there was one."""
        encode_component(identifier, "identifier")
        return bool(await self._run(_DELETE, tenant, action, identifier))

    @property
    def wakes(self) -> bytes:
        """The stream that gets an entry if something becomes due that sleeping runners do not know of."""
        return self._keys.key("trigger_wakes", _TAG)

    async def due(self, actions: Sequence[str]) -> tuple[list[tuple[str, str]], float | None]:
        """Return (action, tenant) pairs with a trigger to claim now, and the seconds until the next one.

        A tenant's name that this package did not write is skipped, and logged once.
        """
        if not actions:
            return [], None
        keys = [self._tenants(action) for action in actions]
        *tenants, wait = await self._client.run_script(_DUE, keys)
        pairs = [
            (action, tenant)
            for action, key, names in zip(actions, keys, tenants, strict=True)
            for tenant in _readable(names, key)
        ]
        return pairs, None if wait < 0 else wait / 1000

    async def claim(
        self, tenant: str, action: str, *, limit: int, lease: float, max_attempts: int
    ) -> tuple[list[TriggerClaim], list[str]]:
        """Claim due triggers, the earliest first; return them, and the identifiers of those with no attempts left.

        A trigger that this package did not write is moved to the dead, because no handler can take it.

        :param lease: seconds that the claims hold unless renewed.
        """
        token = uuid4().hex
        claimed, died = await self._run(_CLAIM, tenant, action, token, limit, to_milliseconds(lease), max_attempts)
        claims: list[TriggerClaim] = []
        for identifier, due, attempt in claimed:
            try:
                trigger = Trigger(tenant, action, identifier.decode(), _moment(due), int(attempt))
            except UnicodeDecodeError:
                await self._run(_BURY, tenant, action, identifier, token, "its identifier is no UTF-8")
                died.append(identifier)
            else:
                claims.append(TriggerClaim(trigger, token))
        return claims, [_shown(identifier) for identifier in died]

    async def done(self, claim: TriggerClaim) -> bool:
        """Delete a trigger that was handled."""
        return await self._end(_DONE, claim)

    async def retry(self, claim: TriggerClaim, delay: float) -> bool:
        """Release a trigger, to be claimed again after ``delay`` seconds."""
        return await self._end(_RETRY, claim, to_milliseconds(delay))

    async def bury(self, claim: TriggerClaim, error: str) -> bool:
        """Move a trigger to the dead."""
        return await self._end(_BURY, claim, error)

    async def renew(self, claim: TriggerClaim, lease: float) -> bool:
        """Hold a trigger for ``lease`` seconds from now on."""
        return await self._end(_RENEW, claim, to_milliseconds(lease))

    async def _end(self, script: Script, claim: TriggerClaim, *args: Argument) -> bool:
        trigger = claim.trigger
        return bool(await self._run(script, trigger.tenant, trigger.action, trigger.identifier, claim.token, *args))

    async def now(self) -> datetime:
        """Return the time of the server."""
        seconds, micros = await self._client.execute(b"TIME")
        return _moment(int(seconds) * 1000 + int(micros) // 1000)

    async def actions(self, tenant: str | None = None) -> list[str]:
        """Return the actions with a waiting trigger; for a tenant, those in which it has one waiting or dead."""
        key = self._keys.key("trigger_actions", _TAG) if tenant is None else self._own_actions(tenant)
        return sorted(_readable(await self._client.execute(b"SMEMBERS", key), key))

    async def waiting(self, tenant: str, action: str) -> AsyncIterator[Trigger]:
        """Iterate over the triggers that wait, are being handled or will be tried again, in no order."""
        key = self._of("trigger_state", tenant, action)
        async for identifier, stored in self._entries(key):
            try:
                due, attempts, _ = stored.decode().split(" ")
                trigger = Trigger(tenant, action, identifier.decode(), _moment(due), int(attempts))
            except (ValueError, OverflowError, OSError) as exc:
                raise _unreadable(key, identifier) from exc
            yield trigger

    async def dead(self, tenant: str, action: str) -> AsyncIterator[DeadTrigger]:
        """Iterate over the triggers that failed for the last time, in no order."""
        key = self._of("trigger_dead", tenant, action)
        async for identifier, stored in self._entries(key):
            try:
                due, attempts, died, error = stored.decode().split(" ", 3)
                trigger = DeadTrigger(
                    *(tenant, action, _shown(identifier), _moment(due), int(attempts), _moment(died), error)
                )
            except (ValueError, OverflowError, OSError) as exc:
                raise _unreadable(key, identifier) from exc
            yield trigger

    async def _entries(self, key: bytes) -> AsyncIterator[tuple[bytes, bytes]]:
        seen: set[bytes] = set()
        cursor = b"0"
        while True:
            cursor, flat = await self._client.execute(b"HSCAN", key, cursor, b"COUNT", _PAGE)
            for identifier, text in zip(flat[::2], flat[1::2], strict=True):
                if identifier not in seen:
                    seen.add(identifier)
                    yield identifier, text
            if cursor == b"0":
                return

    async def _run(self, script: Script, tenant: str, action: str, *args: Argument) -> Any:
        keys = [
            *(self._of(kind, tenant, action) for kind in ("trigger_schedule", "trigger_state", "trigger_dead")),
            self._tenants(action),
            self._keys.key("trigger_actions", _TAG),
            self._own_actions(tenant),
            self.wakes,
        ]
        names = [encode_component(tenant, "tenant"), encode_component(action, "action")]
        return await self._client.run_script(script, keys, [*names, to_milliseconds(LONGEST_SLEEP), *args])

    def _of(self, kind: str, tenant: str, action: str) -> bytes:
        return self._keys.key(kind, _TAG, ("tenant", tenant), ("action", action))

    def _tenants(self, action: str) -> bytes:
        return self._keys.key("trigger_tenants", _TAG, ("action", action))

    def _own_actions(self, tenant: str) -> bytes:
        return self._keys.key("trigger_own_actions", _TAG, ("tenant", tenant))


_said: set[int] = set()
"""Hashes of names that were skipped and logged: the names may be hostile, and as long as a key of Redis."""
_MOST_SAID: Final = 1000


def _readable(names: Iterable[bytes], key: bytes) -> Iterator[str]:
    """Iterate over the names at a key that this package wrote. Others are skipped, and logged once."""
    for each in names:
        try:
            yield decode_name(each, key)
        except UndecodableError as exc:
            if hash(each) not in _said and len(_said) < _MOST_SAID:
                _said.add(hash(each))
                logger.error("%s; it is passed over: remove it", exc)  # noqa: TRY400 - it says all


def _shown(identifier: bytes) -> str:
    return identifier.decode(errors="backslashreplace")


def _unreadable(key: bytes, identifier: bytes) -> UndecodableError:
    return UndecodableError(f"field {identifier[:80]!r} of {key[:200]!r} is no trigger that was written here")


def _moment(milliseconds: bytes | str | int) -> datetime:
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC)
