"""What a Redis tells about itself."""

from tests.servers.redis import RedisServer

__all__ = ["calls_of", "commands", "connections_killed", "entries_removed", "keys_of_type", "members"]

_OF_OURS = frozenset({"info", "keys", "type", "hello", "select", "ping", "command", "auth"})
"""Commands of these very looks, and of connections being made."""

_SIZE = {b"set": "SCARD", b"zset": "ZCARD", b"hash": "HLEN", b"list": "LLEN"}


def _calls(server: RedisServer) -> dict[str, int]:
    lines = server.cli("INFO", "commandstats").decode().splitlines()
    fields = (line.removeprefix("cmdstat_").split(":") for line in lines if line.startswith("cmdstat_"))
    return {name: int(stats.split("calls=")[1].split(",")[0]) for name, stats in fields}


def calls_of(server: RedisServer, *names: str) -> int:
    """Count the calls of some commands since the server started."""
    calls = _calls(server)
    return sum(calls.get(name, 0) for name in names)


def commands(server: RedisServer) -> int:
    """Count all commands since the server started, those that scripts made among them, connecting left out."""
    return sum(number for name, number in _calls(server).items() if name.split("|")[0] not in {*_OF_OURS, "client"})


def keys_of_type(server: RedisServer, kind: bytes) -> list[bytes]:
    """Return the keys of a type."""
    return [key for key in server.cli("KEYS", "*") if server.cli("TYPE", key) == kind]


def members(server: RedisServer) -> int:
    """Count the members of all sets, sorted sets, hashes and lists."""
    kinds = ((key, server.cli("TYPE", key)) for key in server.cli("KEYS", "*"))
    return sum(server.cli(_SIZE[kind], key) for key, kind in kinds if kind in _SIZE)


def connections_killed(server: RedisServer) -> None:
    """Cut all connections, with the server in reach."""
    for kind in ("normal", "pubsub"):
        server.cli("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")


def entries_removed(server: RedisServer) -> int:
    """Remove every key by its name, as somebody with redis-cli might; how many there were."""
    keys = server.cli("KEYS", "*")
    return int(server.cli("UNLINK", *keys)) if keys else 0
