"""A store in memory whose steps are interleaved with those of other tasks at random."""

import asyncio
import random
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent_service.context.interface import Key
from agent_service.context.memory import InMemoryContextStore

__all__ = ["Interleaved"]


@dataclass
class Interleaved(InMemoryContextStore):
    """Lets other tasks go first, as often as chance says, before and after each step."""

    chance: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        super().__init__()

    async def _pause(self) -> None:
        for _ in range(self.chance.choice((0, 0, 0, 1, 3, 10, 30))):
            await asyncio.sleep(0)

    async def _around(self, call: Awaitable[Any]) -> Any:
        await self._pause()
        result = await call
        await self._pause()
        return result

    async def get(self, key: Key) -> Any:
        return await self._around(super().get(key))

    async def set(self, key: Key, value: Mapping[str, Any], **options: Any) -> None:
        await self._around(super().set(key, value, **options))

    async def update(self, key: Key, patch: Mapping[str, Any], **options: Any) -> Any:
        return await self._around(super().update(key, patch, **options))

    async def delete(self, key: Key) -> None:
        await self._around(super().delete(key))

    async def compare_and_set(self, key: Key, value: Mapping[str, Any], **options: Any) -> bool:
        return bool(await self._around(super().compare_and_set(key, value, **options)))

    async def read_to_move(self, key: Key) -> Any:
        return await self._around(super().read_to_move(key))

    async def withdraw(self, key: Key, expected: Mapping[str, Any]) -> bool:
        return bool(await self._around(super().withdraw(key, expected)))

    async def list_keys(self) -> list[Any]:
        return list(await self._around(super().list_keys()))

    async def get_many(self, keys: Iterable[Key]) -> Any:
        return await self._around(super().get_many(keys))

    async def delete_many(self, keys: Iterable[Key]) -> int:
        return int(await self._around(super().delete_many(keys)))

    async def set_many(self, values: Any, **options: Any) -> None:
        await self._around(super().set_many(values, **options))

    __hash__ = object.__hash__
    __eq__ = object.__eq__
