"""Counters in Redis: added to exactly once, and valid only while their tokens stand.

Invariants:

1. A counter is an entry whose body is a number. It is valid under the same condition as any entry: the tokens in its
   head are the current ones.
2. Lua adds without reading heads. It is told how a valid counter begins and does nothing where the stored bytes begin
   otherwise, so a counter that an invalidated tag or a cleared namespace made invalid is never added to.
3. The usual head is guessed, and the token in it is read in the same round trip. A wrong guess costs another round: the
   counter is looked at, and the script is told its head, or that it is invalid and is to be replaced.
4. An increment whose reply is lost may or may not have been made. A :class:`CounterChange` numbers it, and Redis
   remembers the number for as long as it may be sent again, so sending it again is safe.
"""

from collections import OrderedDict
from secrets import token_hex
from typing import NamedTuple

from agent_service.core.envelope import is_counter
from agent_service.core.errors import CacheValueError, RedisCommandError, RedisDeniedError
from agent_service.core.milliseconds import lifetime_in_milliseconds, to_milliseconds
from agent_service.infrastructure.cache.redis.entries import HEAD_BYTES, counter_head, is_live, read_known_head
from agent_service.infrastructure.cache.redis.names import EntryNames
from agent_service.infrastructure.cache.redis.tokens import NAMESPACE, Tokens
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.scripts import INCREMENT
from agent_service.infrastructure.redis.transport.base import Command

__all__ = ["Changes", "CounterChange", "RedisCounters"]

REMEMBERED = 3600.0
"""Seconds that Redis remembers the changes of a process after its latest one: longer outages make them uncertain."""


class CounterChange(NamedTuple):
    """An increment that may be sent more than once."""

    process: str
    number: int
    lowest: int
    """The lowest number of this process that may be sent again."""


class Changes:
    """Numbers the changes of one process."""

    def __init__(self) -> None:
        self._process = token_hex(8)
        self._latest = 0
        self._open: OrderedDict[int, None] = OrderedDict()  # whose first entry is found at once, unlike a dict's

    def __len__(self) -> int:
        """How many changes may be sent again."""
        return len(self._open)

    def begin(self) -> int:
        """Number a change; it may be sent again until :meth:`end`."""
        self._latest += 1
        self._open[self._latest] = None
        return self._latest

    def change(self, number: int) -> CounterChange:
        """Return what is sent with it."""
        return CounterChange(self._process, number, next(iter(self._open)))

    def end(self, number: int) -> None:
        """It will not be sent again."""
        self._open.pop(number, None)


class RedisCounters:
    """The counters of one namespace."""

    def __init__(self, client: RedisClient, names: EntryNames, tokens: Tokens) -> None:
        self._client = client
        self._names = names
        self._tokens = tokens
        self._token = b""

    async def add(self, key: str, amount: int, seconds: float, change: CounterChange | None) -> int:
        """Add to a counter; see ``Backend.add``. A ``change`` that was made before is not made again."""
        lifetime = lifetime_in_milliseconds(seconds) if seconds > 0 else -1
        physical = self._names.prefix + key.encode()
        keys, remember = self._keys(physical, change)
        guess = self._token  # others change it while this one waits
        fresh = counter_head({NAMESPACE: guess})
        valid, invalid = fresh, b""
        while True:
            script: Command = (*INCREMENT.call, len(keys), *keys, amount, lifetime, valid, invalid, fresh, *remember)
            try:
                (token,), reply = await self._client.pipeline(
                    [self._tokens.take_command((NAMESPACE,), lifetime_in_milliseconds(max(seconds, 1))), script]
                )
            except RedisDeniedError:
                raise
            except RedisCommandError as exc:
                token, reply = (await self._tokens.take([NAMESPACE], max(seconds, 1)))[NAMESPACE], b""
                if token == guess:
                    raise _explained(exc, key, amount) from exc
            if token != guess:  # what was added to, or could not be, is invalid
                self._token = guess = token
                fresh = counter_head({NAMESPACE: token})
                valid, invalid = fresh, b""
            elif isinstance(reply, list):
                head, invalid = await self._look(physical, reply[0], token, key)
                valid = head or fresh
            else:
                return int(reply)

    async def _look(self, physical: bytes, stored: bytes, token: bytes, key: str) -> tuple[bytes, bytes]:
        """Tell how the counter begins: (its head, nothing) where it is valid, else (nothing, how it begins)."""
        head = read_known_head(stored)
        if head is None and len(stored) == HEAD_BYTES:
            stored = await self._client.get(physical) or b""
            head = read_known_head(stored)
        if head is None:
            return b"", stored
        known: dict[str, bytes | None] = {NAMESPACE: token}
        others = sorted(head.tags.keys() - known.keys())
        if others:
            known.update(await self._tokens.read(others))
        if not is_live(head, known):
            return b"", stored[: head.end] or stored  # a bare number, which nobody here wrote, has no head
        if not is_counter(stored, head):
            raise CacheValueError(
                f"the entry of key {key!r:.80} is no integer within 64 bits; delete it or set a number first"
            )
        return stored[: head.end], b""

    def _keys(self, physical: bytes, change: CounterChange | None) -> tuple[list[bytes], list[int]]:
        leases = self._names.leases(physical)
        if change is None or not leases:
            return [physical, *leases], []
        remembered = self._names.changes(physical, change.process, shared=not self._client.is_cluster)
        return [physical, *leases, remembered], [change.number, change.lowest, to_milliseconds(REMEMBERED)]


def _explained(exc: RedisCommandError, key: str, amount: int) -> Exception:
    if any(sign in str(exc) for sign in ("not an integer", "overflow", "WRONGTYPE")):
        return CacheValueError(
            f"the entry of key {key!r:.80} is no integer within 64 bits, or adding {amount} would leave them; "
            "it is unchanged"
        )
    return exc
