"""One SSL context for all connections with the same TLS options, made beside the event loop.

To make one means to read the system's certificates and to parse them: 20 to 70 ms, which redis-py spends on the loop
for each connection. Here a thread does it once. Files that the options name are looked at for each connection, so a
certificate that was renewed is used without a restart.
"""

import asyncio
import os
import ssl
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, TypeAlias
from weakref import WeakValueDictionary

from redis.exceptions import ConnectionError as RedisConnectionError

from agent_service.core.urls.redis import RedisTarget

__all__ = ["Tls", "tls_of"]

_FILES: Final = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")

_DEMANDS: Final = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}

_Stamp: TypeAlias = tuple[tuple[int, ...] | None, ...]


class Tls:
    """The SSL context of some options, for the connections of any event loop.

    :param options: ``ssl_*`` arguments of a redis-py connection.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options
        self._files = [options[name] for name in _FILES if name in options]
        self._made: tuple[_Stamp, ssl.SSLContext] | None = None
        self._making: tuple[_Stamp, Future[ssl.SSLContext]] | None = None
        self._lock = threading.Lock()

    async def context(self) -> ssl.SSLContext:
        """Return the context, made anew where a file of the options has changed.

        :raises redis.exceptions.ConnectionError: for options that cannot be used.
        """
        stamp = tuple(_stamp(each) for each in self._files)
        if self._made is not None and self._made[0] == stamp:
            return self._made[1]
        return await asyncio.wrap_future(self._make(stamp))

    def _make(self, stamp: _Stamp) -> "Future[ssl.SSLContext]":
        with self._lock:
            if self._making is None or self._making[0] != stamp:
                made: Future[ssl.SSLContext] = Future()
                made.set_running_or_notify_cancel()  # nobody who stops waiting can cancel it
                self._making = stamp, made
                threading.Thread(target=self._run, args=self._making, name="redis-tls", daemon=True).start()
            return self._making[1]

    def _run(self, stamp: _Stamp, made: "Future[ssl.SSLContext]") -> None:
        outcome: ssl.SSLContext | Exception
        try:
            outcome = _context(self._options)
        except Exception as exc:  # noqa: BLE001 - whatever it is, it goes to who waits
            outcome = exc
        with self._lock:
            if not isinstance(outcome, Exception):
                self._made = stamp, outcome
            if self._making is not None and self._making[1] is made:
                self._making = None
        if isinstance(outcome, Exception):
            named = ", ".join(f"{name}={value}" for name, value in self._options.items() if name in _FILES)
            failure = RedisConnectionError(f"the TLS options of the URL cannot be used ({named or 'none'}): {outcome}")
            failure.__cause__ = outcome
            made.set_exception(failure)
        else:
            made.set_result(outcome)


def _context(options: Mapping[str, Any]) -> ssl.SSLContext:
    """Do what redis-py does with these options, in every version."""
    context = ssl.create_default_context()
    demand = _DEMANDS[options.get("ssl_cert_reqs", "required")]
    context.check_hostname = options.get("ssl_check_hostname", True) and demand is not ssl.CERT_NONE
    context.verify_mode = demand
    key: str | None = options.get("ssl_keyfile")
    certificate: str | None = options.get("ssl_certfile", key)
    if certificate is not None:
        # Without a password OpenSSL would ask the terminal for that of an encrypted key.
        context.load_cert_chain(certificate, key, options.get("ssl_password", ""))
    authorities = [options.get(f"ssl_ca_{name}") for name in ("certs", "path", "data")]
    if any(authorities):
        context.load_verify_locations(*authorities)
    if "ssl_ciphers" in options:
        context.set_ciphers(options["ssl_ciphers"])
    return context


def _stamp(path: str) -> tuple[int, ...] | None:
    try:
        found = Path(path).stat()
    except OSError:  # which making the context will tell
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


_shared: "WeakValueDictionary[tuple[tuple[str, Any], ...], Tls]" = WeakValueDictionary()


def tls_of(target: RedisTarget) -> Tls | None:
    """Return what the connections to a target share; None: they speak no TLS."""
    if not target.tls:
        return None
    options = tuple(sorted((name, value) for name, value in target.options.items() if name.startswith("ssl_")))
    tls = _shared.get(options)
    if tls is None:
        tls = _shared[options] = Tls(dict(options))
    return tls


# A thread of the parent that makes a context does not exist in a child.
os.register_at_fork(after_in_child=_shared.clear)
