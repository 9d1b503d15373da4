"""Which Redis a store uses: the arguments that may name one, read and checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from pydantic import SecretStr

from agent_service.core.errors import ConfigurationError
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.manager import RedisManager

__all__ = ["DEFAULT_PREFIX", "GivenRedis", "RedisContextConfig", "check_prefix", "url_of"]

DEFAULT_PREFIX: Final = "dynagent_ctx"


@dataclass(frozen=True)
class RedisContextConfig:
    """Where a :class:`RedisContextStore` keeps its contexts."""

    url: str = field(repr=False)  # it may hold a password
    prefix: str = DEFAULT_PREFIX


class GivenRedis:
    """What a caller gave of the arguments that name a Redis; at most one of them.

    :param config: an object or mapping with ``url`` and perhaps ``prefix``; or, as text, the host.
    :raises ConfigurationError: for more than one of them, and for a config without a URL.
    """

    def __init__(
        self,
        config: Any,
        *,
        host: str | None,
        url: str | None,
        client: Any,
        manager: RedisManager | None,
        prefix: str | None,
    ) -> None:
        places = {"config": config, "host": host, "url": url, "client": client, "manager": manager}
        given = [name for name, place in places.items() if place is not None]
        if len(given) > 1:
            raise ConfigurationError(f"{' and '.join(given)} were given; give one of {', '.join(places)}")
        if isinstance(config, str):
            host = config
        elif config is not None:
            url, prefix = _read_config(config, prefix)
        self.host = host
        self.url = url
        self.prefix = prefix
        self._client = client
        self._manager = manager

    def client(self, *, timeout: float, max_connections: int) -> RedisClient | None:
        """Return the client that was given, itself, as a redis-py client or in a manager; None: there is none."""
        if self._manager is not None:
            return _client_of(self._manager)
        if self._client is None or isinstance(self._client, RedisClient):
            return self._client
        return RedisClient.over(self._client, timeout=timeout, max_connections=max_connections)


def _client_of(manager: object) -> RedisClient:
    if not isinstance(manager, RedisManager):
        raise ConfigurationError(f"manager must be a RedisManager, not a {type(manager).__name__}")
    if not manager.is_configured:
        raise ConfigurationError("manager has no Redis: it was made without a URL; set REDIS_URL, or give url=")
    return manager.client


def _read_config(config: Any, prefix: str | None) -> tuple[str, str | None]:
    values = (
        config if isinstance(config, Mapping) else {name: getattr(config, name, None) for name in ("url", "prefix")}
    )
    url = values.get("url")
    if isinstance(url, SecretStr):
        url = url.get_secret_value()
    if not isinstance(url, str):
        raise ConfigurationError(f"config must have a url, which a {type(config).__name__} without one has not")
    return url, values.get("prefix") if prefix is None else prefix


def url_of(host: str, port: int, db: int, username: str | None, password: str | None, *, ssl: bool) -> str:
    """Return the URL of a server on a host."""
    login = "" if username is None and password is None else f"{quote(username or '', '')}:{quote(password or '', '')}@"
    address = f"[{host}]" if ":" in host else host
    return f"redis{'s' if ssl else ''}://{login}{address}:{port}/{db}"


def check_prefix(prefix: Any) -> str:
    """Return a prefix that can begin Redis keys.

    :raises ConfigurationError: for what is no text, or has no UTF-8 form.
    """
    if not isinstance(prefix, str) or not _is_text(prefix):
        raise ConfigurationError(f"prefix must be text, got {type(prefix).__name__} {prefix!a:.80}")
    return prefix


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
