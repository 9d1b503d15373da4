"""Commands that are held up on their way out and on their way back, to be let go on in an order of a test's choice."""

import asyncio
import contextvars
import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from agent_service.infrastructure.redis.client import RedisClient

T = TypeVar("T")

QUIET_TICKS = 25
"""Turns of the loop in which whatever was let go on comes to its next halt."""

free: contextvars.ContextVar[bool] = contextvars.ContextVar("free", default=False)
"""Whether the commands of the caller, and of the load that he begins, pass every gate."""


class Gates:
    """Holds up whoever comes by until he is let through."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Future[None]] = []
        self.in_flight = 0
        self.open = False

    async def stop(self, *, everybody: bool = False) -> None:
        if self.open or (free.get() and not everybody):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(turn)
        try:
            await turn
        finally:
            if turn in self.waiting:
                self.waiting.remove(turn)

    async def through(self, call: Callable[[], Awaitable[T]]) -> T:
        await self.stop()
        self.in_flight += 1
        try:
            reply = await call()
        finally:
            self.in_flight -= 1
        await self.stop()
        return reply

    def let_through(self, place: int) -> None:
        self.waiting.pop(place % len(self.waiting)).set_result(None)

    def let_all_through(self) -> None:
        self.open = True
        while self.waiting:
            self.let_through(0)

    async def settle(self) -> None:
        """Wait until everything stands before a gate again."""
        quiet = 0
        while quiet < QUIET_TICKS:
            await asyncio.sleep(0.0002 if self.in_flight else 0)
            quiet = 0 if self.in_flight else quiet + 1


class GatedClient(RedisClient):
    """A client whose commands are held up on their way out and on their way back."""

    gates: Gates

    async def execute(self, *command: Any) -> Any:
        return await self.gates.through(functools.partial(super().execute, *command))

    async def get_many(self, keys: Sequence[bytes], *, patience: float | None = None) -> list[bytes | None]:
        return await self.gates.through(functools.partial(super().get_many, keys, patience=patience))

    async def pipeline(self, commands: Sequence[Any], **options: Any) -> list[Any]:
        return await self.gates.through(functools.partial(super().pipeline, commands, **options))

    async def run_script(self, script: Any, keys: Sequence[bytes] = (), args: Sequence[Any] = ()) -> Any:
        return await self.gates.through(functools.partial(super().run_script, script, keys, args))

    async def unlink(self, keys: Sequence[bytes], **options: Any) -> int:
        return await self.gates.through(functools.partial(super().unlink, keys, **options))
