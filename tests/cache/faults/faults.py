"""What servers and networks do to caches. Each fault is brought about and ended again, as often as a run is long."""

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from tests.servers.ports import free_port
from tests.servers.proxy import TcpProxy
from tests.servers.redis import RedisServer

__all__ = ["FAULTS", "Fault"]


class Fault(ABC):
    """One way to fail.

    :param server: what the processes share.
    :param proxies: one on the way of each process to it.
    """

    options: ClassVar[tuple[tuple[str, str], ...]] = ()
    """Of the server."""
    keeps_data = True
    """Whether what Redis acknowledged is there afterwards."""
    on_the_way = False
    """Whether it is the way to Redis that fails."""
    is_outage = True
    """Whether Redis stops to serve somebody."""
    delay = 0.0
    """Seconds by which it prolongs what is answered."""
    lasts: ClassVar[tuple[float, float]] = (0.4, 2.0)
    """Seconds, in a short run and in a long one."""
    pause = 0.3
    """Seconds between the end of one and the next, on average."""

    def __init__(self, server: RedisServer, proxies: Sequence[TcpProxy], rng: random.Random) -> None:
        self.server = server
        self.proxies = proxies
        self.rng = rng

    @abstractmethod
    async def inject(self) -> None:
        """Bring it about."""

    @abstractmethod
    async def heal(self) -> None:
        """End it."""

    async def _tell(self, *command: object) -> bytes:
        reply: bytes = await asyncio.to_thread(self.server.cli, *command)
        return reply

    def _some_proxies(self) -> list[TcpProxy]:
        return self.rng.sample(self.proxies, self.rng.randint(1, len(self.proxies)))


class Killed(Fault):
    """SIGKILL, and a start with nothing."""

    keeps_data = False
    lasts = (0.2, 1.0)

    async def inject(self) -> None:
        await asyncio.to_thread(self.server.kill)

    async def heal(self) -> None:
        await asyncio.to_thread(self.server.restart)


class KilledWithAof(Killed):
    """SIGKILL, and a start with everything that was acknowledged."""

    options = (("appendonly", "yes"), ("appendfsync", "always"))
    keeps_data = True


class Stopped(Fault):
    """SIGSTOP: connections stay and take commands, nothing is answered; afterwards all of it is executed."""

    lasts = (0.6, 5.0)

    async def inject(self) -> None:
        self.server.stop()

    async def heal(self) -> None:
        self.server.cont()


class Stalled(Fault):
    """The network forwards nothing, for one process or both; afterwards what it held back."""

    on_the_way = True

    async def inject(self) -> None:
        for proxy in self._some_proxies():
            proxy.stall()

    async def heal(self) -> None:
        for proxy in self.proxies:
            proxy.resume()


class Held(Fault):
    """The connections there are hang, new ones work, and what was held back arrives long after it was given up."""

    on_the_way = True

    async def inject(self) -> None:
        self._let_go = [proxy.hold() for proxy in self._some_proxies()]

    async def heal(self) -> None:
        for let_go in self._let_go:
            let_go()


class Cut(Fault):
    """Connections end in the middle of a reply."""

    on_the_way = True
    lasts = (0.02, 0.02)
    pause = 0.05

    async def inject(self) -> None:
        for proxy in self._some_proxies():
            proxy.cut_reply_after(self.rng.choice([0, 0, 1, 5, 20]))

    async def heal(self) -> None:
        for proxy in self.proxies:
            proxy.cut_reply_after(None)


class Slow(Fault):
    """Every reply takes 50 ms longer."""

    on_the_way = True
    is_outage = False
    delay = 0.05

    async def inject(self) -> None:
        for proxy in self._some_proxies():
            proxy.delay(self.delay)

    async def heal(self) -> None:
        for proxy in self.proxies:
            proxy.delay(0)


class OutOfMemory(Fault):
    """Redis has no memory left and may evict nothing."""

    async def inject(self) -> None:
        await self._tell("CONFIG", "SET", "maxmemory", "1")

    async def heal(self) -> None:
        await self._tell("CONFIG", "SET", "maxmemory", "0")


class ReadOnly(Fault):
    """Redis is made a replica, of a server that nobody reaches."""

    async def inject(self) -> None:
        await self._tell("REPLICAOF", "127.0.0.1", free_port())

    async def heal(self) -> None:
        await self._tell("REPLICAOF", "NO", "ONE")


class Flushed(Fault):
    """Everything is deleted: entries, tokens and leases."""

    keeps_data = False
    is_outage = False
    lasts = (0.01, 0.01)
    pause = 0.1

    async def inject(self) -> None:
        await self._tell("FLUSHALL")

    async def heal(self) -> None:
        pass


class TrackingKilled(Fault):
    """The connections by which processes hear of changes are cut."""

    is_outage = False
    lasts = (0.01, 0.01)

    async def inject(self) -> None:
        for line in (await self._tell("CLIENT", "LIST")).decode().splitlines():
            fields = dict(part.partition("=")[::2] for part in line.split())
            if "t" in fields["flags"]:
                await self._tell("CLIENT", "KILL", "ID", fields["id"])

    async def heal(self) -> None:
        pass


class Together(Fault):
    """A fault of the server and one of the network at once."""

    options = KilledWithAof.options
    on_the_way = True
    delay = Slow.delay
    lasts = (0.3, 1.0)

    async def inject(self) -> None:
        kinds = (self.rng.choice(_OF_SERVERS), self.rng.choice(_OF_NETWORKS))
        self._now = [kind(self.server, self.proxies, self.rng) for kind in kinds]
        for each in self._now:
            await each.inject()
            await asyncio.sleep(self.rng.uniform(0, 0.1))

    async def heal(self) -> None:
        for each in self.rng.sample(self._now, 2):
            await each.heal()
            await asyncio.sleep(self.rng.uniform(0, 0.1))


_OF_SERVERS = (KilledWithAof, Stopped, OutOfMemory, ReadOnly)
_OF_NETWORKS = (Stalled, Held, Cut, Slow)

FAULTS: tuple[type[Fault], ...] = (
    Killed,
    KilledWithAof,
    Stopped,
    Stalled,
    Held,
    Cut,
    Slow,
    OutOfMemory,
    ReadOnly,
    Flushed,
    TrackingKilled,
    Together,
)
