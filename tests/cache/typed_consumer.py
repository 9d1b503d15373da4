"""What type checkers see of decorated functions: ``make lint`` checks this module, and nothing runs it.

A staticmethod is typed right when it is reached through its class. mypy takes ``@staticmethod`` off before it looks at
what ``@cached`` returns, so through an instance it binds it (pyright does not).
"""

from typing import assert_type

from agent_service import cached
from agent_service.infrastructure.cache import CacheInfo


class Service:
    @cached(ttl=60)
    async def price(self, name: str, vat: bool = False) -> int:
        return len(name)

    @classmethod
    @cached(ttl=60)
    async def of_class(cls, name: str) -> int:
        return 1

    @cached(ttl=60)
    @classmethod
    async def of_class_too(cls, name: str) -> int:
        return 1

    @staticmethod
    @cached(ttl=60)
    async def free(name: str) -> int:
        return 2

    @cached(ttl=60)
    @staticmethod
    async def free_too(name: str) -> int:
        return 2


class Child(Service):
    async def price_twice(self, name: str) -> int:
        return 2 * await super().price(name)


@cached(ttl=5)
async def plain(a: int) -> str:
    return "x"


async def main(service: Service) -> None:
    assert_type(await service.price("tea", vat=True), int)
    assert_type(await service.price.invalidate("tea"), bool)
    assert_type(await service.price.refresh("tea"), int)
    assert_type(service.price.cache_key("tea"), str)
    assert_type(service.price.cache_info(), CacheInfo)
    assert_type(await Service.price.invalidate(service, "tea"), bool)
    assert_type(await Service.of_class("tea"), int)
    assert_type(await Service.of_class.invalidate("tea"), bool)
    assert_type(await service.of_class("tea"), int)
    assert_type(await service.of_class.refresh("tea"), int)
    assert_type(await Service.of_class_too("tea"), int)
    assert_type(await service.of_class_too.invalidate("tea"), bool)
    assert_type(await Service.free("tea"), int)
    assert_type(await Service.free.invalidate("tea"), bool)
    assert_type(await Service.free_too.refresh("tea"), int)
    assert_type(await plain(1), str)
    assert_type(await plain.invalidate(1), bool)
    await service.price(1)  # type: ignore[arg-type]
    await service.price.invalidate(1)  # type: ignore[arg-type]
    await Service.of_class.invalidate(1)  # type: ignore[arg-type]
