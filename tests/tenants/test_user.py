"""RedisUser: the search handle, and finding by a field."""

from typing import Any

import pytest
from pydantic import BaseModel

from agent_service.core.errors import RecordValueError
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.tenants import RedisUser


class Settings(BaseModel):
    dark: bool


INDEXES: list[tuple[str, ...]] = [(), ("email",)]


@pytest.fixture(params=INDEXES, ids=["scanning", "indexed"])
def indexes(request: pytest.FixtureRequest) -> tuple[str, ...]:
    found: tuple[str, ...] = request.param
    return found


async def test_a_user_is_found_by_a_field(indexes: tuple[str, ...]):
    for number in range(30):
        await RedisUser("acme", f"u{number}", indexes=indexes).upsert({"email": f"{number}@x", "number": number})

    found = await RedisUser(tenant="acme", user_id="*", indexes=indexes).find_by_field("email", "17@x")

    assert found == {"email": "17@x", "number": 17}
    assert await RedisUser.search("acme", indexes=indexes).find_by_field("email", "99@x") is None
    assert await RedisUser.search("other", indexes=indexes).find_by_field("email", "17@x") is None
    assert await RedisUser("acme", "any user", indexes=indexes).find_by_field("email", "17@x") == found


@pytest.mark.parametrize("value", ["1", 1, 1.0, True, None, "true", 2**70, [1], {"a": 1, "b": [True]}, 2**64 - 1, -1])
async def test_what_is_found_has_the_same_value_and_type(indexes: tuple[str, ...], value: Any):
    await RedisUser("acme", "decoy", indexes=indexes).upsert({"email": "decoy", "other": value})
    for number, other in enumerate(["1", 1, 1.0, True, None, "true", 2**70, [1], {"b": [True], "a": 1}, 2**64 - 1, -1]):
        await RedisUser("acme", f"u{number}", indexes=indexes).upsert({"email": other, "number": number})

    found = await RedisUser.search("acme", indexes=indexes).find_by_field("email", value)

    assert found is not None
    assert type(found["email"]) is type(value)
    assert found["email"] == value


async def test_a_user_is_no_longer_found_by_what_it_was(indexes: tuple[str, ...]):
    user, search = RedisUser("acme", "u", indexes=indexes), RedisUser.search("acme", indexes=indexes)
    await user.upsert({"email": "old"})
    await user.update_field("email", "new")
    assert await search.find_by_field("email", "old") is None
    assert await search.find_by_field("email", "new") is not None
    await user.delete_field("email")
    assert await search.find_by_field("email", "new") is None
    await user.upsert({"email": "new"})

    await user.delete()

    assert await search.find_by_field("email", "new") is None


async def test_a_user_that_expired_is_not_found(indexes: tuple[str, ...], client: RedisClient):
    await RedisUser("acme", "u", indexes=indexes).upsert({"email": "a"})
    await client.unlink([b"agent_service%tenant:{acme}:user:u"])

    assert await RedisUser.search("acme", indexes=indexes).find_by_field("email", "a") is None


async def test_what_is_found_comes_as_models(indexes: tuple[str, ...]):
    await RedisUser("acme", "u", indexes=indexes).upsert({"email": True, "settings": Settings(dark=True)})

    found = await RedisUser.search("acme", indexes=indexes).find_by_field("email", True, models={"settings": Settings})

    assert found == {"email": True, "settings": Settings(dark=True)}


async def test_an_index_costs_the_same_among_many_users(client: RedisClient):
    search = RedisUser.search("acme", indexes=("email",))

    async def cost() -> int:
        before = await commands(client)
        assert await search.find_by_field("email", "me") is not None
        return await commands(client) - before

    await RedisUser("acme", "me", indexes=("email",)).upsert({"email": "me"})
    alone = await cost()
    await client.pipeline([("SET", f"agent_service%tenant:{{acme}}:user:{n}", 1, "EX", 60) for n in range(3000)])

    assert await cost() == alone


async def commands(client: RedisClient) -> int:
    info: bytes = await client.execute("INFO", "stats")
    return int(info.split(b"total_commands_processed:")[1].split(b"\r\n")[0])


async def test_a_search_handle_only_searches():
    handle = RedisUser("acme", "*")

    for call in (
        *(handle.get(), handle.get_field("a"), handle.exists(), handle.upsert({}), handle.update_field("a", 1)),
        *(handle.increment_field("a"), handle.append_to_list("a", 1), handle.delete(), handle.delete_field("a")),
        *(handle.compare_and_set("a", 1, 2), handle.renew_ttl(), handle.get_ttl()),
    ):
        with pytest.raises(RecordValueError, match="search handle"):
            await call


def test_indexes_given_as_one_text_are_refused():
    with pytest.raises(RecordValueError, match=r"write \('email',\)"):
        RedisUser("acme", "u", indexes="email")
