"""Parse a Redis URL: where Redis is, and which topology it has."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal, NoReturn
from urllib.parse import parse_qsl, unquote

from agent_service.core.errors import ConfigurationError
from agent_service.core.urls.addresses import parse_address
from agent_service.core.urls.mask import mask_url

__all__ = ["EMBEDDED_SOCKET", "MAX_SOCKET_PATH", "RedisTarget", "Topology", "parse_redis_url"]

Topology = Literal["single", "sentinel", "cluster"]

_TOPOLOGIES: Final[Mapping[str, Topology]] = {
    "redis": "single",
    "rediss": "single",
    "unix": "single",
    "embedded": "single",
    "redis+sentinel": "sentinel",
    "redis+cluster": "cluster",
}
_EXAMPLES: Final = {
    "redis": "redis://:password@localhost:6379/0",
    "rediss": "rediss://:password@localhost:6379/0",
    "unix": "unix:///run/redis.sock?db=0",
    "embedded": "embedded:///var/lib/app/redis",
    "redis+sentinel": "redis+sentinel://:password@host1:26379,host2:26379/mymaster/0",
    "redis+cluster": "redis+cluster://:password@host1:6379,host2:6379",
}

EMBEDDED_SOCKET: Final = "redis.sock"
"""The unix socket of an embedded server, in its folder."""
MAX_SOCKET_PATH: Final = 103
"""Bytes that the path of a unix socket may have on macOS; Linux takes four more."""


@dataclass(frozen=True, slots=True)
class RedisTarget:
    """Where Redis is. ``str()`` gives the URL without its secrets."""

    topology: Topology
    url: str
    """The URL with user name and passwords masked."""
    addresses: tuple[tuple[str, int], ...] = ()
    """Host and port of the server, of each sentinel, or of the nodes that know the cluster."""
    path: str | None = None
    """The unix socket, where there is one."""
    folder: str | None = None
    """Where an embedded server keeps its data and its socket; None for a temporary one that has no place yet."""
    temporary: bool = False
    """Whether an embedded server's data go when it ends."""
    service: str | None = None
    """The name under which the sentinels know the master."""
    db: int = 0
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Further arguments of every redis-py connection: ``client_name``, ``ssl_*`` and the like."""
    sentinel_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """User name and password of the sentinels themselves."""

    def __str__(self) -> str:
        return self.url

    @property
    def embedded(self) -> bool:
        """Whether the server is started by those who use it."""
        return self.temporary or self.folder is not None


def parse_redis_url(url: str) -> RedisTarget:
    """Read a Redis URL.

    ``redis://[user:password@]host[:port][/db]``, ``rediss://`` (TLS), ``unix://[user:password@]/path[?db=0]``,
    ``embedded://[/folder][?db=0]`` (a private server of this machine, which keeps its data in the folder),
    ``redis+sentinel://[user:password@]host[:port],host[:port]/service[/db]`` and
    ``redis+cluster://[user:password@]host[:port],host[:port]``. User name and password belong to Redis itself; those of
    sentinels are the options ``sentinel_username`` and ``sentinel_password``. Options after ``?`` are ``db``,
    ``client_name``, ``health_check_interval`` (seconds), ``socket_keepalive``, ``ssl_*`` and, for sentinels and
    clusters, ``ssl=true``. Percent-encoded characters are decoded.

    :raises ConfigurationError: for anything else; the message shows the URL with user name and passwords masked.
    """
    if not isinstance(url, str):
        raise ConfigurationError(f"Redis URL must be a str, not {type(url).__name__}; like {_EXAMPLES['redis']}")
    scheme, location, username, password, query = _split(url)
    topology = _TOPOLOGIES[scheme]
    if scheme == "embedded":
        return _embedded(url, unquote(location), username or password, _options(url, query))
    hosts, socket, service, db_text = _place(url, scheme, location)
    # Parsed before the query: if the host was forgotten, names in the query may be the rest of a password.
    addresses = () if socket else _addresses(url, hosts, 26379 if topology == "sentinel" else 6379, topology)
    options = _options(url, query)
    tls = scheme == "rediss" or (topology != "single" and bool(options.pop("ssl", False)))
    _check_tls_options(url, options, tls=tls)
    sentinel_options = _sentinel_options(url, options, topology)
    db = _db(url, options.pop("db", None), db_text)
    if topology == "cluster" and db:
        _refuse(url, f"asks for db {db}; a cluster has only db 0")
    return RedisTarget(
        topology=topology,
        url=mask_url(url),
        addresses=addresses,
        path=socket,
        service=service,
        db=db,
        username=options.pop("username", username),
        password=options.pop("password", password),
        tls=tls,
        options=MappingProxyType(options),
        sentinel_options=MappingProxyType(sentinel_options),
    )


def _refuse(url: str, problem: str) -> NoReturn:
    example = _EXAMPLES.get(url.partition("://")[0], _EXAMPLES["redis"])
    raise ConfigurationError(f"Redis URL {mask_url(url)!r} {problem}; write it like {example}") from None


def _split(url: str) -> tuple[str, str, str | None, str | None, str]:
    """Return scheme, the text between ``@`` and ``?``, user name, password, and the text after ``?``."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _TOPOLOGIES:
        _refuse(url, f"must begin with one of {', '.join(f'{each}://' for each in _TOPOLOGIES)}")
    rest, _, query = rest.partition("?")
    if "@" in query:
        _refuse(url, "has an '@' after a '?'; percent-encode the one that is meant as a character")
    userinfo, _, location = rest.rpartition("@")
    username, _, password = userinfo.partition(":")
    return scheme, location, unquote(username) or None, unquote(password) or None, query


def _embedded(url: str, folder: str, credentials: str | None, options: dict[str, Any]) -> RedisTarget:
    if credentials is not None or not options.keys().isdisjoint({"username", "password"}):
        _refuse(url, "has a user name or password; an embedded server has none, its folder is private")
    useless = sorted(name for name in options if name.startswith(("ssl", "sentinel_")))
    if useless:
        _refuse(url, f"has the option {useless[0]!r}, which an embedded server cannot use")
    if folder and (not folder.startswith("/") or not folder.strip("/")):
        _refuse(url, "names no folder by its whole path")
    folder = folder.rstrip("/")
    length = len(os.fsencode(f"{folder}/{EMBEDDED_SOCKET}"))
    if length > MAX_SOCKET_PATH:
        longest = MAX_SOCKET_PATH - len(EMBEDDED_SOCKET) - 1
        _refuse(
            url,
            f"names a folder of {length - len(EMBEDDED_SOCKET) - 1} bytes; with more than {longest} the path "
            "of the unix socket in it is too long, so use a shorter one",
        )
    if "\0" in folder:
        _refuse(url, "names a folder with U+0000 in its name")
    return RedisTarget(
        topology="single",
        url=mask_url(url),
        path=f"{folder}/{EMBEDDED_SOCKET}" if folder else None,
        folder=folder or None,
        temporary=not folder,
        db=options.pop("db", 0),
        options=MappingProxyType(options),
    )


def _place(url: str, scheme: str, location: str) -> tuple[str, str | None, str | None, str]:
    """Return hosts, unix socket, service, and the text that should be the database number."""
    hosts, _, path = location.partition("/")
    if scheme == "unix":
        socket = unquote(location)
        if not socket.startswith("/") or socket == "/":
            _refuse(url, "names no socket by its whole path")
        return "", socket, None, ""
    if scheme == "redis+sentinel":
        service, _, path = path.partition("/")
        if not service:
            _refuse(url, "names no service after the sentinels")
        return hosts, None, unquote(service), path
    return hosts, None, None, path


def _sentinel_options(url: str, options: dict[str, Any], topology: Topology) -> dict[str, Any]:
    names = [name for name in options if name.startswith("sentinel_")]
    if names and topology != "sentinel":
        _refuse(url, "has sentinel_ options, which only redis+sentinel:// takes")
    return {name.removeprefix("sentinel_"): options.pop(name) for name in names}


def _addresses(url: str, hosts: str, default_port: int, topology: Topology) -> tuple[tuple[str, int], ...]:
    given = hosts.split(",")
    if len(given) > 1 and topology == "single":
        _refuse(url, f"names {len(given)} hosts; for several use redis+cluster:// or redis+sentinel://")
    return tuple(_address(url, each, default_port) for each in given)


def _address(url: str, text: str, default_port: int) -> tuple[str, int]:
    try:
        host, port = parse_address(text)
    except ValueError as exc:
        _refuse(url, str(exc))
    host = unquote(host)
    if not host and "," in url:
        _refuse(url, "names an empty host")
    return host or "localhost", default_port if port is None else port


def _db(url: str, option: int | None, text: str) -> int:
    if option is not None:
        return option
    if not text.strip("/"):
        return 0
    if not re.fullmatch(r"\d{1,9}/?", text):
        _refuse(url, "has something else where the database number belongs")
    return int(text.strip("/"))


def _options(url: str, query: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        convert = _OPTIONS.get(name)
        if convert is None:
            # Behind the unencoded & of a password is the rest of it.
            secret = any(each.endswith("password") for each in options)
            named = "an option behind a password" if secret else f"the option {name!r:.40}"
            _refuse(url, f"has {named}, which is unknown here; known are {', '.join(sorted(_OPTIONS))}")
        try:
            options[name] = convert(text)
        except ValueError:
            _refuse(url, f"has a value for the option {name!r} that cannot be used")
    return options


def _check_tls_options(url: str, options: Mapping[str, Any], *, tls: bool) -> None:
    if "ssl" in options:
        _refuse(url, "has the option 'ssl', which sentinels and clusters take; for one server use rediss://")
    useless = [name for name in options if name.startswith("ssl_")]
    if useless and not tls:
        _refuse(url, f"has the option {useless[0]!r} but no TLS; use rediss://, or ssl=true for sentinels and clusters")


def _boolean(text: str) -> bool:
    if text.lower() in {"true", "yes", "1"}:
        return True
    if text.lower() in {"false", "no", "0"}:
        return False
    raise ValueError


def _natural(text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text):
        raise ValueError
    return int(text)


def _certificate_demand(text: str) -> str:
    if text not in {"none", "optional", "required"}:
        raise ValueError
    return text


_OPTIONS: Final[Mapping[str, Callable[[str], Any]]] = {
    "db": _natural,
    "username": str,
    "password": str,
    "client_name": str,
    "health_check_interval": _natural,
    "socket_keepalive": _boolean,
    "sentinel_username": str,
    "sentinel_password": str,
    "ssl": _boolean,
    "ssl_ca_certs": str,
    "ssl_ca_data": str,
    "ssl_ca_path": str,
    "ssl_cert_reqs": _certificate_demand,
    "ssl_certfile": str,
    "ssl_check_hostname": _boolean,
    "ssl_ciphers": str,
    "ssl_keyfile": str,
    "ssl_password": str,
}
