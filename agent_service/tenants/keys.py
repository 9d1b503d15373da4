"""Keys of the tenants' data: how a record is named in Redis, and why no tenant can name another tenant's records.

A key is ``{root}%tenant:{tag}:kind:rest``, with literal braces around the tag:

* Every component is percent-encoded, so that none holds ``:``, ``%``, a brace or a glob character. Each kind has a
  fixed number of components. Therefore no two records share a key, and a pattern made of components matches only
  itself.
* The text between the braces is the hash tag: on a cluster, keys with the same tag share a slot, so that one script
  can change a record together with the set that lists it.
* ``%t`` never occurs in an encoded text, so no key of a cache (``{root}:...``) begins like these keys, and no pattern
  or ``clear()`` of a cache reaches them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import quote, unquote

from agent_service.core.errors import RecordValueError, UndecodableError

__all__ = ["PERMANENT_KINDS", "KeyFactory", "KeyParts", "decode_component", "decode_name", "encode_component"]

PERMANENT_KINDS: Final[frozenset[str]] = frozenset(
    {
        *("batch", "batch_claims", "batch_queues", "batch_pending"),
        *("trigger_schedule", "trigger_state", "trigger_dead"),
        *("trigger_tenants", "trigger_actions", "trigger_own_actions"),
    }
)
"""The kinds of keys that do not expire: work waits until it is done. All others have a time to live, which is checked
after each test."""

_MARK: Final = "%tenant:"
_READABLE: Final = "@+="
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.~@+=-]{1,2048}")
_KEY: Final = re.compile(r"\{([^{}]*)\}:([a-z_]+)((?::[^:]+)*)")
_MAX_BYTES: Final = 2048


def encode_component(value: str, name: str) -> str:
    """Percent-encode one component of a key: letters, digits and ``_ . - ~ @ + =`` stay as they are.

    :param name: what to call the component in an error.
    :raises RecordValueError: if it is no str, is empty, holds a lone surrogate, or has more than 2048 bytes in UTF-8.
    """
    if type(value) is str and _PLAIN.fullmatch(value):
        return value
    if not isinstance(value, str):
        raise RecordValueError(f"{name} must be a str, not {type(value).__name__}: {value!r:.80}; make it a str first")
    if not value:
        raise RecordValueError(f"{name} is empty; give it at least one character")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as exc:
        raise RecordValueError(
            f"{name} holds a lone surrogate at position {exc.start}: {value!r:.80}; it has no UTF-8 form, replace it"
        ) from None
    if size > _MAX_BYTES:
        raise RecordValueError(
            f"{name} has {size} bytes in UTF-8, at most {_MAX_BYTES} are allowed: {value[:80]!r}; use a digest of it"
        )
    return quote(value, safe=_READABLE)


def decode_component(text: str) -> str:
    """Return the text that :func:`encode_component` encoded."""
    return unquote(text, errors="strict")


def decode_name(stored: bytes, key: bytes) -> str:
    """Return the text of a name that is stored in Redis.

    :param key: where it is stored.
    :raises UndecodableError: if :func:`encode_component` did not write it; it names the key.
    """
    try:
        name = decode_component(stored.decode("ascii"))
    except UnicodeDecodeError as exc:
        raise UndecodableError(f"{key[:200]!r} holds {stored[:80]!r}, which is no name that was written here") from exc
    if not name:
        raise UndecodableError(f"{key[:200]!r} holds an empty name, which was not written here")
    return name


@dataclass(frozen=True, slots=True)
class KeyParts:
    """The parts of a key, decoded: its kind, the components of its hash tag, and those after the kind."""

    kind: str
    tag: tuple[str, ...]
    rest: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyFactory:
    """Builds and parses keys. Stateless: equal arguments give equal keys in every process.

    :param root: first component of every key; ``CACHE_KEY_PREFIX`` for the repositories.
    """

    root: str = "agent_service"

    def key(self, kind: str, tag: Sequence[tuple[str, str]], *rest: tuple[str, str]) -> bytes:
        """Return a key of any kind.

        :param kind: lower-case letters and underscores; one kind always has the same number of components.
        :param tag: components of the hash tag as ``(name, value)``; the name is for errors.
        :param rest: the other components, likewise.
        :raises RecordValueError: if a component cannot be used.
        """
        tagged = ":".join([encode_component(value, name) for name, value in tag])
        tail = "".join([f":{encode_component(value, name)}" for name, value in rest])
        return f"{self._start}{{{tagged}}}:{kind}{tail}".encode()

    def parse(self, key: bytes) -> KeyParts | None:
        """Return the parts of a key that :meth:`key` built; None for a key of another root."""
        start = self._start.encode()
        found = _KEY.fullmatch(key[len(start) :].decode(errors="replace")) if key.startswith(start) else None
        if found is None:
            return None
        tag, kind, rest = found.groups()
        return KeyParts(
            kind, tuple(map(decode_component, tag.split(":"))), tuple(map(decode_component, rest.split(":")[1:]))
        )

    @property
    def _start(self) -> str:
        return _start(self.root)

    def user(self, tenant: str, user_id: str) -> bytes:
        """Return the key of a user's record. All users of a tenant share a slot, which their secondary indexes need."""
        return self.key("user", [("tenant", tenant)], ("user_id", user_id))

    def users(self, tenant: str) -> bytes:
        """Return the prefix of the keys of all users of a tenant, and of no others."""
        return self.key("user", [("tenant", tenant)]) + b":"

    def user_index(self, tenant: str, field: str) -> bytes:
        """Return the prefix of the keys of a secondary index; a digest of the indexed value follows."""
        return self.key("user_by", [("tenant", tenant)], ("field", field)) + b":"

    def state(self, tenant: str, user_id: str, name: str) -> bytes:
        """Return the key of one handler's state for a user."""
        return self.key("state", [("tenant", tenant), ("user_id", user_id)], ("handler", name))

    def table_row(self, tenant: str, table: str, pk: str) -> bytes:
        """Return the key of a row. Rows with one primary key, of all tables, share a slot with :meth:`row_tables`."""
        return self.key("table", [("tenant", tenant), ("pk", pk)], ("table", table))

    def table_rows(self, tenant: str, table: str) -> bytes:
        """Return a glob that matches the keys of all rows of a table, and no others: no component can hold a brace."""
        any_pk = "{" + encode_component(tenant, "tenant") + ":*}"
        return f"{self._start}{any_pk}:table:{encode_component(table, 'table')}".encode()

    def row_tables(self, tenant: str, pk: str) -> bytes:
        """Return the key of the set of tables that have a row with this primary key."""
        return self.key("tables", [("tenant", tenant), ("pk", pk)])

    def shared_state(self, tenant: str, user_id: str, name: str) -> bytes:
        """Return the key of a user's shared state."""
        return self.key("shared_state", [("tenant", tenant), ("user_id", user_id)], ("state", name))

    def shared_states(self, tenant: str, user_id: str) -> bytes:
        """Return the key of the set of names of a user's shared states."""
        return self.key("shared_states", [("tenant", tenant), ("user_id", user_id)])

    def generic(self, tenant: str, key: str) -> bytes:
        """Return the key of a generic value."""
        return self.key("generic", [("tenant", tenant), ("key", key)])


@lru_cache(maxsize=64)
def _start(root: str) -> str:
    return encode_component(root, "root") + _MARK
