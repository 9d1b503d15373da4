"""Every repository of records behind one face, so that one test asks all of them."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agent_service.tenants import RedisSharedState, RedisStateHandler, RedisTable, RedisUser

HOSTILE = [
    *(":", "::", "_", "*", "?", "[", "]", "[a-z]", "\\", "{", "}", "{}", "{a}", "%", "%3A", "%2A", "a:b", "a}:user:b"),
    *(
        "a",
        "A",
        "a*",
        "a?",
        "a\n",
        "a\r\nDEL x",
        "\x00",
        " ",
        "é",
        "e\u0301",
        "☃",
        "\U0001f600",
        "1",
        "user",
        "..",
        "/",
    ),
]

Call = Callable[..., Awaitable[Any]]


@dataclass(frozen=True)
class Room:
    """One record of one repository; ``where`` are the leading arguments of its methods."""

    repository: Any
    where: tuple[str, ...]

    def __getattr__(self, name: str) -> Call:
        method: Call = getattr(self.repository, name)

        def call(*args: Any, **kwargs: Any) -> Awaitable[Any]:
            return method(*self.where, *args, **kwargs)

        return call

    async def put(self, data: Mapping[str, Any]) -> None:
        """Make these the only fields."""
        if hasattr(self.repository, "set"):
            await self.set(data)
        else:
            await self.delete()
            await self.upsert(data)


ROOMS: dict[str, Callable[[str, str, str], Room]] = {
    "user": lambda tenant, one, _: Room(RedisUser(tenant, f"{one}"), ()),
    "indexed user": lambda tenant, one, _: Room(RedisUser(tenant, f"{one}", indexes=("1", "email")), ()),
    "state": lambda tenant, one, two: Room(RedisStateHandler(tenant, one), (two,)),
    "table": lambda tenant, one, two: Room(RedisTable(tenant), (two, one)),
    "shared state": lambda tenant, one, two: Room(RedisSharedState(tenant, one), (two,)),
}
"""By name: makes a record's room from a tenant, the first id (user or primary key) and the second (name or table)."""
