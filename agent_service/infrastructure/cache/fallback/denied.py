"""What the server denies to caches: logged once, and checked again until it is permitted.

A denied command or key is a fault of configuration, not an outage. It is handled by the steps of an outage with three
differences:

* Everything that is denied is found at once and logged once, as an error.
* The journal holds one invalidation, of everything, for each namespace that misses any, however long it lasts.
* Redis serves again only when all that caches need is permitted, so that it does not switch back and forth.
"""

import logging
import math
from collections.abc import Callable
from typing import Final

from agent_service.core.errors import RedisDeniedError
from agent_service.core.keys import root_prefix
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.permissions import check_permissions, describe_denials

__all__ = ["Denial"]

logger = logging.getLogger("agent_service.cache")

_SOON: Final = 120.0
"""Seconds after which a denial that seemed to be over is a new one."""


class Denial:
    """Whether anything is denied to the caches of one prefix.

    :param monotonic: seconds that never go back.
    """

    def __init__(self, client: RedisClient, prefix: str, monotonic: Callable[[], float]) -> None:
        self.text: str | None = None
        """What is denied, and the remedy; None: nothing, as far as is known."""
        self._client = client
        self._prefix = prefix
        self._monotonic = monotonic
        self._latest = ""
        self._root = root_prefix(prefix)
        self._keys: list[bytes] = []
        self._ended_at = -math.inf
        self._logged = False

    def begin(self, exc: RedisDeniedError) -> bool:
        """Note a denial. True if all seemed permitted since the same one before, so that no check finds it."""
        again = str(exc) == self._latest and self._monotonic() - self._ended_at < _SOON
        self._logged = self._logged and again
        self._latest = str(exc)
        self._keys = [key for key in exc.keys if key.startswith(self._root)]
        self.text = describe_denials(self._prefix, [exc])
        if again:
            self._log()
        return again

    async def check(self) -> None:
        """Try all that caches need.

        :raises RedisDeniedError: while anything is denied.
        :raises RedisOperationError: when Redis cannot be asked.
        """
        denials = await check_permissions(self._client, self._prefix, self._keys)
        if denials:
            self.text = describe_denials(self._prefix, denials)
            self._log()
            raise denials[0]

    def end(self) -> None:
        """Note that Redis serves."""
        if self.text is not None:
            self.text = None
            self._ended_at = self._monotonic()

    def _log(self) -> None:
        if not self._logged:
            self._logged = True
            logger.error("%s; caches use this process's memory until then", self.text)
