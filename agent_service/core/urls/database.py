"""Parse a database URL: which database it is, and how to connect to it.

Nothing is connected and no file is opened here. Options stand in the query. For PostgreSQL they are the parameters of
libpq, which people paste from their provider, as far as the driver supports them.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NoReturn
from urllib.parse import parse_qsl, quote, unquote

from agent_service.core.errors import ConfigurationError
from agent_service.core.urls.addresses import parse_address, parse_port
from agent_service.core.urls.mask import known_scheme, query_before_at

__all__ = ["POSTGRES", "SQLITE", "SYSTEM_CERTIFICATES", "DatabaseTarget", "parse_database_url"]

POSTGRES: Final = "postgresql+asyncpg"
SQLITE: Final = "sqlite+aiosqlite"
SYSTEM_CERTIFICATES: Final = "system"
"""The value of ``sslrootcert`` that means the certificates of the operating system."""
_EXAMPLES: Final = {
    POSTGRES: "postgresql+asyncpg://user:password@host:5432/name",
    SQLITE: "sqlite+aiosqlite:///file.db, with a fourth slash before a whole path",
}

_POSTGRES_PARTS: Final = re.compile(
    r"(?:(?P<user>[^:/@]*)(?::(?P<password>[^@]*))?@)?(?P<hosts>[^/?]*)(?:/(?P<database>[^?]*))?(?:\?(?P<query>.*))?",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class DatabaseTarget:
    """Where a database is. ``str()`` gives a URL without user name, password and options."""

    scheme: str
    database: str = ""
    """Its name, or SQLite's file; empty: the server's default, or a database in memory."""
    hosts: tuple[tuple[str, int | None], ...] = ()
    """Host, or directory of a unix socket, and port of each server that may serve."""
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Further parameters by name, converted: those of libpq, of the SQLite driver, or of SQLite's file URIs."""

    @property
    def embedded(self) -> bool:
        """Whether the database lives in this process: SQLite."""
        return self.scheme == SQLITE

    def __str__(self) -> str:
        hosts = ",".join(f"{_bracketed(host)}{f':{port}' if port else ''}" for host, port in self.hosts)
        return f"{self.scheme}://{hosts}/{self.database if self.embedded else quote(self.database)}"


def parse_database_url(url: str) -> DatabaseTarget:
    """Read a database URL.

    ``sqlite+aiosqlite:///file.db`` (in memory: ``sqlite+aiosqlite://``), or
    ``postgresql+asyncpg://[user[:password]@][host[:port][,host[:port]]][/name]``; user name and password are
    percent-decoded. Options after ``?`` are for PostgreSQL libpq's ``sslmode`` (also spelled ``ssl``) and its
    certificates, ``target_session_attrs``, ``connect_timeout``, ``application_name``, ``options``, ``host``, ``port``,
    ``user``, ``password``, ``dbname`` and ``passfile``; for SQLite ``uri=true`` and those of a file URI.

    :raises ConfigurationError: for anything else; the message repeats nothing that may be a password.
    """
    if not isinstance(url, str):
        raise ConfigurationError(f"the database URL must be a str, not {type(url).__name__}")
    scheme, separator, rest = url.partition("://")
    if scheme not in _EXAMPLES:
        given = "no scheme" if not separator else f"{scheme}://" if known_scheme(scheme) else "an unknown scheme"
        raise ConfigurationError(f"the database URL has {given}; it must begin with {POSTGRES}:// or {SQLITE}://")
    if not _is_text(unquote(rest)):
        _refuse(scheme, "holds U+0000 or a lone surrogate; remove it")
    return _postgres(rest) if scheme == POSTGRES else _sqlite(rest)


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\x00" not in text


def _refuse(scheme: str, problem: str) -> NoReturn:
    raise ConfigurationError(f"the database URL {problem}; write it like {_EXAMPLES[scheme]}") from None


def _postgres(rest: str) -> DatabaseTarget:
    parts = _POSTGRES_PARTS.fullmatch(rest)
    if parts is None:
        _refuse(POSTGRES, "cannot be read; percent-encode what is special in its user name or password")
    query = parts["query"] or ""
    credentials = parts["user"] is not None
    if "@" in (parts["database"] or "") or (credentials and (query_before_at(rest) or "@" in query)):
        # The host is shown in errors, and the text before this @ is most likely the rest of a password.
        _refuse(POSTGRES, "has an @ behind its host; percent-encode what is special in its user name or password")
    # Parsed before the query: if the host was forgotten, names in the query may be the rest of a password.
    written = _hosts(parts["hosts"], None)
    options = _options(query, _POSTGRES_OPTIONS)
    if options.get("sslrootcert") == SYSTEM_CERTIFICATES and options.setdefault("sslmode", _STRICT) != _STRICT:
        _refuse(POSTGRES, f"has sslrootcert={SYSTEM_CERTIFICATES}, which needs sslmode={_STRICT}")
    hosts, ports = options.pop("host", None), options.pop("port", None)
    username, password = (None if part is None else unquote(part) for part in (parts["user"], parts["password"]))
    return DatabaseTarget(
        scheme=POSTGRES,
        database=options.pop("dbname", None) or unquote(parts["database"] or ""),
        hosts=_hosts(hosts or parts["hosts"], ports) if hosts or ports else written,
        username=options.pop("user", None) or username or None,
        password=options.pop("password", password),
        options=MappingProxyType(options),
    )


def _hosts(text: str, ports: str | None) -> tuple[tuple[str, int | None], ...]:
    try:
        hosts = [_host(each) for each in text.split(",")] if text else []
        given = [parse_port(each) for each in ports.split(",")] if ports else []
    except ValueError as exc:
        _refuse(POSTGRES, str(exc))
    if not given:
        return tuple(hosts)
    if len(given) == 1:
        given *= len(hosts) or 1
    if len(given) != max(len(hosts), 1):
        _refuse(POSTGRES, f"has {len(hosts)} hosts and {len(given)} ports; give one for each, or one for all")
    return tuple((host, own or port) for (host, own), port in zip(hosts or [("", None)], given, strict=True))


def _host(text: str) -> tuple[str, int | None]:
    text = unquote(text)
    if text.startswith("/"):
        return text, None  # the directory of a unix socket
    host, port = parse_address(text)
    if not host:
        raise ValueError("names an empty host")
    return host, port


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _sqlite(rest: str) -> DatabaseTarget:
    place, _, query = rest.partition("?")
    if place and not place.startswith("/"):
        _refuse(SQLITE, "names a host, which SQLite has not")
    options = _options(query, _SQLITE_OPTIONS)
    for name in options.keys() & _FILE_URI_OPTIONS.keys():
        if not options.get("uri"):
            _refuse(SQLITE, f"has the option {name!r}, which takes uri=true and a path that begins with file:")
    return DatabaseTarget(scheme=SQLITE, database=place[1:], options=MappingProxyType(options))


def _options(query: str, known: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for given, text in parse_qsl(query, keep_blank_values=True):
        name = _OTHER_NAMES.get(given, given)
        convert = known.get(name)
        if convert is None:
            remedy = _INSTEAD.get(given, f"known are {', '.join(sorted(known))}")
            named = "an option behind a password" if options.keys() & _SECRETS else f"the option {given!r:.40}"
            raise ConfigurationError(f"the database URL has {named}, which is unknown here; {remedy}")
        try:
            value = convert(text)
        except ValueError as exc:
            raise ConfigurationError(f"the database URL has an option {given!r} that cannot be used: {exc}") from None
        if name == "host" and name in options:
            value = f"{options[name]},{value}"  # SQLAlchemy's way to name several
        if options.setdefault(name, value) != value:
            if name != "host":
                raise ConfigurationError(
                    f"the database URL has the option {given!r} more than once, not alike"
                ) from None
            options[name] = value
    return {name: value for name, value in options.items() if value is not None}


def _text(text: str) -> str:
    if not text or "\x00" in text:
        raise ValueError("it must be a text of at least one character")
    return text


def _one_of(*values: str) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if text not in values:
            raise ValueError(f"it must be one of {', '.join(values)}")
        return text

    return convert


def _without_effect(*values: str, refused: str) -> Callable[[str], None]:
    """Return a converter that accepts only values without any effect here, and says why others are refused."""

    def convert(text: str) -> None:
        if text.lower() not in values:
            raise ValueError(f"{refused}; remove it, or write {' or '.join(values)}")

    return convert


def _boolean(text: str) -> bool:
    if text.lower() in {"true", "yes", "on", "1"}:
        return True
    if text.lower() in {"false", "no", "off", "0"}:
        return False
    raise ValueError("it must be true or false")


def _seconds(text: str) -> float:
    if not re.fullmatch(r"\d{1,4}(\.\d+)?", text, re.ASCII) or not 0 < float(text) <= 3600:
        raise ValueError("it must be seconds above 0, at most 3600")
    return float(text)


def _natural(text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        raise ValueError("it must be a number from 0")
    return int(text)


_STRICT: Final = "verify-full"
_SECRETS: Final = {"password", "sslpassword"}
"""Options whose values may hold an unencoded ``&``: the text behind it looks like another option."""
_OTHER_NAMES: Final = {"ssl": "sslmode", "database": "dbname"}
_POSTGRES_OPTIONS: Final[Mapping[str, Callable[[str], Any]]] = {
    "sslmode": _one_of("disable", "allow", "prefer", "require", "verify-ca", _STRICT),
    "sslrootcert": _text,
    "sslcert": _text,
    "sslkey": _text,
    "sslpassword": _text,
    "sslcrl": _text,
    "ssl_min_protocol_version": _one_of("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"),
    "ssl_max_protocol_version": _one_of("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"),
    "target_session_attrs": _one_of("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
    "channel_binding": _without_effect("disable", "prefer", refused="the driver cannot bind to the channel"),
    "gssencmode": _without_effect("disable", "prefer", refused="the driver cannot encrypt by GSSAPI"),
    "client_encoding": _without_effect("utf8", "utf-8", "auto", refused="text is always UTF-8"),
    "connect_timeout": _seconds,
    "application_name": _text,
    "options": _text,
    "host": _text,
    "port": _text,
    "user": _text,
    "password": _text,
    "dbname": _text,
    "passfile": _text,
    "prepared_statement_cache_size": _natural,
    "statement_cache_size": _natural,
}
_FILE_URI_OPTIONS: Final[Mapping[str, Callable[[str], Any]]] = {
    "mode": _one_of("ro", "rw", "rwc", "memory"),
    "cache": _one_of("shared", "private"),
    "immutable": _natural,
    "nolock": _natural,
    "psow": _natural,
    "vfs": _text,
}
_SQLITE_OPTIONS: Final[Mapping[str, Callable[[str], Any]]] = {
    "uri": _boolean,
    "cached_statements": _natural,
    "check_same_thread": _boolean,
    **_FILE_URI_OPTIONS,
}
_INSTEAD: Final = {
    "pgbouncer": "set DB_PGBOUNCER=true",
    "connection_limit": "set DB_POOL_SIZE",
    "pool_size": "set DB_POOL_SIZE",
    "max_overflow": "set DB_MAX_OVERFLOW",
    "pool_timeout": "set DB_POOL_TIMEOUT",
    "statement_timeout": "set DB_STATEMENT_TIMEOUT",
    "command_timeout": "set DB_STATEMENT_TIMEOUT",
    "timeout": "write connect_timeout for PostgreSQL; SQLite waits 30 seconds for a lock",
    "schema": "write options=-csearch_path=NAME",
    "search_path": "write options=-csearch_path=NAME",
    "currentSchema": "write options=-csearch_path=NAME",
}
