"""The cache and the triggers at the command line, on a real Redis."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from agent_service import close_cache, get_cache
from agent_service.cli import main
from agent_service.core.settings import reset_settings
from agent_service.tenants import RedisTrigger
from agent_service.tenants.base import current_redis
from agent_service.tenants.schedule import TriggerSchedule
from tests.cli.conftest import Command
from tests.support.waiting import until

COMMANDS = (
    ("cache", "get", "key"), ("cache", "ttl", "key"), ("cache", "scan"), ("cache", "invalidate", "key"),
    ("triggers", "list", "--tenant", "acme"), ("triggers", "retry", "--tenant", "acme", "--all"),
    ("triggers", "discard", "--tenant", "acme", "--all"),
)  # fmt: skip


@pytest.fixture
def configured(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """REDIS_URL, of an empty server."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    reset_settings()


def run(work: Callable[[], Awaitable[None]]) -> None:
    """Do something with the Redis of the settings, as a service does."""

    async def working() -> None:
        try:
            await work()
        finally:
            await close_cache()

    asyncio.run(working())


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_without_redis_there_is_nothing_to_look_at(command: tuple[str, ...], refused: Callable[..., str]):
    assert "REDIS_URL is not set, so caches and triggers are in the memory of each process" in refused(*command)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_redis_that_is_down_is_told_although_caches_serve_without(
    command: tuple[str, ...], refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("REDIS_URL", "redis://user:s3cret@127.0.0.1:9/0")
    reset_settings()

    line = refused(*command)

    assert "127.0.0.1:9" in line
    assert "s3cret" not in line


@pytest.mark.usefixtures("configured")
def test_entries_are_shown_and_invalidated(as_json: Command, capsys):
    async def fill() -> None:
        cache = await get_cache("users")
        await cache.set("user:1", {"name": "Ann \x1b[31m"}, ttl=100, tags=["red"])
        await cache.set("user:2", None, ttl=100, tags=["red", "blue"])
        await cache.set("user:3", 3, ttl=100)
        await cache.set("other", 4, ttl=100)
        await (await get_cache("odd")).set("odd", {(1, 2): float("nan"), "list": [float("inf"), 1.5]}, ttl=100)

    users = ("--namespace", "users")
    run(fill)

    assert as_json("cache", "get", "user:1", *users) == {"found": True, "value": {"name": "Ann \x1b[31m"}}
    assert as_json("cache", "get", "user:2", *users) == {"found": True, "value": None}
    assert as_json("cache", "get", "user:2", code=1) == {"found": False, "value": None}
    odd = {"(1, 2)": "nan", "list": ["inf", 1.5]}
    assert as_json("cache", "get", "odd", "--namespace", "odd") == {"found": True, "value": odd}
    assert main(["cache", "get", "odd", "--namespace", "odd"]) == 0
    assert json.loads(capsys.readouterr().out) == odd
    assert main(["cache", "get", "user:1", *users]) == 0
    assert "\x1b" not in capsys.readouterr().out
    living = as_json("cache", "ttl", "user:1", *users)
    assert 90 < living["ttl"] <= 100
    assert as_json("cache", "ttl", "user:9", *users, code=1) == {"found": False, "ttl": None}

    assert {each["key"] for each in as_json("cache", "scan", "user:*", *users)["keys"]} == {
        "user:1",
        "user:2",
        "user:3",
    }
    assert as_json("cache", "scan", *users, "--limit", 4)["more"] is False
    some = as_json("cache", "scan", *users, "--limit", 3)
    assert (len(some["keys"]), some["more"]) == (3, True)

    as_json("cache", "invalidate", "--tag", "blue", "--tag", "green", *users)
    assert {each["key"] for each in as_json("cache", "scan", *users)["keys"]} == {"user:1", "user:3", "other"}
    assert as_json("cache", "invalidate", "user:1", "user:9", *users) == {"deleted": 1}
    assert as_json("cache", "invalidate", "--pattern", "user:*", *users) == {"deleted": 1}
    as_json("cache", "invalidate", "--all", *users)
    assert as_json("cache", "scan", *users)["keys"] == []


@pytest.mark.parametrize(
    "arguments", [(), ("key", "--all"), ("--tag", "t", "--pattern", "p"), ("--all", "--tag", "t")], ids=" ".join
)
def test_what_to_invalidate_is_one_thing(arguments: tuple[str, ...]):
    with pytest.raises(SystemExit) as exit_:
        main(["cache", "invalidate", *arguments])

    assert exit_.value.code == 2


@pytest.mark.usefixtures("configured")
def test_dead_triggers_are_listed_retried_and_discarded(as_json: Command, refused: Callable[..., str]):
    async def schedule() -> None:
        triggers = RedisTrigger("acme")
        await triggers.set("mail", "later", 1000)
        for identifier in ("a", "b", "c"):
            await triggers.set("mail", identifier, 0.001)
        books = TriggerSchedule(*await current_redis())
        buried: list[str] = []

        async def bury() -> bool:
            claims, _ = await books.claim("acme", "mail", limit=10, lease=60, max_attempts=3)
            for claim in claims:
                await books.bury(claim, "LookupError: no such user")
                buried.append(claim.trigger.identifier)
            return len(buried) == 3

        await until(bury)

    acme = ("--tenant", "acme")

    def listed(*options: str) -> set[tuple[str, str]]:
        return {
            (each["state"], each["identifier"]) for each in as_json("triggers", "list", *acme, *options)["triggers"]
        }

    run(schedule)

    assert listed() == {("pending", "later"), ("dead", "a"), ("dead", "b"), ("dead", "c")}
    assert listed("--dead") == {("dead", "a"), ("dead", "b"), ("dead", "c")}
    assert as_json("triggers", "list", *acme, "--dead")["triggers"][0]["error"] == "LookupError: no such user"
    assert as_json("triggers", "list", "--tenant", "other")["triggers"] == []
    assert "name one dead trigger by ACTION and IDENTIFIER, or give --all" in refused("triggers", "retry", *acme)
    assert "or give --all" in refused("triggers", "discard", *acme, "mail", "a", "--all")
    assert "or give --all" in refused("triggers", "discard", *acme, "mail", "--all")
    assert "or give --all" in refused("triggers", "discard", *acme, "mail")
    assert as_json("triggers", "retry", *acme, "mail", "later", code=1) == {"retried_triggers": 0}
    assert as_json("triggers", "retry", *acme, "mail", "a") == {"retried_triggers": 1}
    assert listed() == {("pending", "later"), ("pending", "a"), ("dead", "b"), ("dead", "c")}
    assert as_json("triggers", "discard", *acme, "mail", "b") == {"discarded_triggers": 1}
    assert as_json("triggers", "discard", *acme, "--all") == {"discarded_triggers": 1}
    assert listed() == {("pending", "later"), ("pending", "a")}
