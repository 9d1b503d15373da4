"""Which connections a transport remembers as given up: each once, the latest thousand, until the server drops them."""

import pytest
from redis.asyncio import Connection

from agent_service.infrastructure.redis.transport.abandoned import Abandoned, drop, greet_and_identify
from tests.servers.redis import GivenServer, RedisServer

BOUND = 1000


class Introduced(Connection):
    """A connection of redis-py that was told its name without a server."""

    def __init__(self, answer: bytes) -> None:
        super().__init__()
        self._answer = answer

    async def on_connect(self) -> None:
        """Greet nobody."""

    async def send_command(self, *args: object, **kwargs: object) -> None:
        """Send nothing."""

    async def read_response(self, *args: object, **kwargs: object) -> bytes:
        return self._answer


async def connection(number: int) -> Introduced:
    made = Introduced(b"id=%d addr=127.0.0.1:%d laddr=127.0.0.1:6379 name=" % (number, number))
    await greet_and_identify(made)
    return made


async def test_past_the_bound_the_oldest_is_forgotten_first():
    abandoned = Abandoned()
    for number in range(BOUND + 2):
        abandoned.add(await connection(number))

    known = [int(number) for number, _ in abandoned.identities()]
    assert known == list(range(2, BOUND + 2))


async def test_what_the_server_has_dropped_is_forgotten_and_nothing_else():
    abandoned = Abandoned()
    for number in (1, 2, 3):
        abandoned.add(await connection(number))
    abandoned.forget([(b"2", b"127.0.0.1:2"), (b"9", b"127.0.0.1:9")])

    assert abandoned.identities() == [(b"1", b"127.0.0.1:1"), (b"3", b"127.0.0.1:3")]


async def test_a_connection_that_was_never_introduced_or_is_given_up_twice_counts_once():
    abandoned, twice = Abandoned(), await connection(1)
    for each in (twice, twice, Introduced(b"")):
        abandoned.add(each)

    assert len(abandoned.identities()) == 1
    assert not abandoned.take_unidentified()


@pytest.mark.parametrize("given_up", [True, False])
async def test_only_the_connection_that_was_given_up_is_dropped(
    redis_server: RedisServer | GivenServer, redis_url: str, given_up: bool
):
    host, port = redis_url.removeprefix("redis://").partition("/")[0].split(":")
    abandoned = Abandoned()
    one, other = [Connection(host=host, port=int(port), redis_connect_func=greet_and_identify) for _ in range(2)]
    await one.connect()
    await other.connect()
    abandoned.add(one if given_up else other)
    for identity in abandoned.identities():
        redis_server.cli(*drop(identity))

    left = one if not given_up else other
    await left.send_command("PING")
    assert await left.read_response() == b"PONG"
    assert len(abandoned.identities()) == 1
    await one.disconnect()
    await other.disconnect()
