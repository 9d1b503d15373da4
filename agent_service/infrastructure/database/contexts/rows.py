"""The statements of one key-value table. Rows whose time is over count as absent, by the database's clock."""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, Final

from sqlalchemy import (
    Float,
    Select,
    String,
    Table,
    UnaryExpression,
    bindparam,
    cast,
    delete,
    func,
    literal,
    literal_column,
    null,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.operators import custom_op

__all__ = ["ABSENT", "Rows", "row_key", "row_of"]

ABSENT: Final = ""
"""What a row holds while it is locked before its first value; it is never committed, and no document is empty text."""
_LONGEST_KEY: Final = 1024
"""Longest key, in bytes, that is indexed as it is; PostgreSQL's limit for an index entry is about 2,700."""
_DIGEST_MARK: Final = "~#"
_AFTER_DIGESTS: Final = "~$"
_SQLITE_NOW: Final = "strftime('%Y-%m-%d %H:%M:%f000', 'now')"


def row_of(key: str, value: str) -> dict[str, str | None]:
    """Return the columns of a row that does not expire."""
    place = row_key(key)
    return {"key": place, "value": value, "long_key": None if place == key else key}


def row_key(key: str) -> str:
    """Return the key, or a 256-bit digest of a long one; no encoded key begins like a digest."""
    if len(key) * 4 <= _LONGEST_KEY:
        return key
    data = key.encode()
    return key if len(data) <= _LONGEST_KEY else _DIGEST_MARK + blake2b(data, digest_size=32).hexdigest()


class Rows:
    """Statements for a table.

    :param table: with the columns of ``ContextEntry``; one of an earlier version has no ``expires_at``.
    """

    def __init__(self, table: Table, dialect: str) -> None:
        self._table = table
        self._postgres = dialect == "postgresql"
        self._columns: Any = table.c
        self.expire = "expires_at" in table.c
        # Built once: what every call would build again costs more than what SQLite does with it.
        self._read = select(table.c.key, table.c.value).where(
            table.c.key.in_(bindparam("keys", expanding=True)), self._live()
        )
        self._write, self._lock = self._make_write(expiring=False), self._make_lock()
        self._write_expiring = self._make_write(expiring=True) if self.expire else None

    def read(self) -> Select[Any]:
        """Read keys and values of the rows whose keys are in ``keys``."""
        return self._read

    def read_left(self, key: str) -> Select[Any]:
        """Read a value, and for how many seconds it is there; None: it does not expire."""
        columns = self._columns
        return select(columns.value, self._seconds_left()).where(columns.key == key, self._live())

    def write(self, *, expiring: bool) -> Any:
        """Write rows of :func:`row_of`, in place of those that are there.

        :param expiring: for ``ttl`` seconds; only for a table whose rows can :attr:`expire`.
        """
        return self._write_expiring if expiring else self._write

    def _make_write(self, *, expiring: bool) -> Any:
        insert = self._insert(expiring=expiring)
        changed = {name: insert.excluded[name] for name in ("value", *self._expiry)}
        return insert.on_conflict_do_update(index_elements=[self._columns.key], set_=changed)

    def lock(self) -> Any:
        """Lock a row, making it where there is none; return its value, and whether its time is not over."""
        return self._lock

    def _make_lock(self) -> Any:
        columns, insert = self._columns, self._insert(expiring=False)
        lock = insert.on_conflict_do_update(index_elements=[columns.key], set_={"key": insert.excluded.key})
        return lock.returning(columns.value, self._was_live())

    def change(self, key: str, value: str, ttl: float | None, *, keep: bool) -> Any:
        """Replace the value of a row that is locked.

        :param keep: whether it keeps the time it has; else it lives for ``ttl`` seconds, or does not expire.
        """
        expiry = {} if keep else {name: self._moment(literal(ttl, Float)) for name in self._expiry}
        return update(self._table).where(self._columns.key == key).values(value=value, **expiry)

    def remove(self, keys: Iterable[str]) -> Any:
        """Remove rows in the order of their keys; return for each whether its time was not over."""
        column = self._columns.key
        locked = select(column).where(column.in_(keys)).order_by(column).with_for_update()
        return delete(self._table).where(column.in_(locked.scalar_subquery())).returning(self._was_live())

    def remove_expired(self, size: int) -> Any:
        """Remove at most ``size`` rows whose time is over, the longest first; those that others have locked stay."""
        columns = self._columns
        over = select(columns.key).where(columns.expires_at <= self._now()).order_by(columns.expires_at).limit(size)
        chosen: Any = over.with_for_update(skip_locked=True).cte("over") if self._postgres else over.subquery()
        return delete(self._table).where(columns.key.in_(select(chosen.c.key)))

    def keys(self) -> Select[Any]:
        """Read every key."""
        return select(func.coalesce(self._columns.long_key, self._columns.key)).where(self._live())

    def keys_between(self, least: str, below: str, after: str | None, limit: int) -> Select[Any]:
        """Read the next keys from ``least`` to below ``below``, in the order of their bytes, that are stored whole."""
        column = self._columns.key
        wanted = [
            self._compare(column, ">=", least),
            self._compare(column, "<", below),
            self._columns.long_key.is_(None),
        ]
        if after is not None:
            wanted.append(self._compare(column, ">", after))
        order = UnaryExpression(column, modifier=custom_op("USING ~<~")) if self._postgres else column
        return select(column).where(*wanted, self._live()).order_by(order).limit(limit)

    def long_keys(self, beginning: str, after: str | None, limit: int) -> Select[Any]:
        """Read the next keys that begin like this and are too long to be stored whole; reads all that are so long."""
        place, column = self._columns.key, self._columns.long_key
        wanted = [
            self._compare(place, ">=", _DIGEST_MARK),
            self._compare(place, "<", _AFTER_DIGESTS),
            func.substr(column, 1, len(beginning)) == beginning,
        ]
        if after is not None:
            wanted.append(self._compare(column, ">", after))
        order = UnaryExpression(column, modifier=custom_op("USING ~<~")) if self._postgres else column
        return select(column).where(*wanted, self._live()).order_by(order).limit(limit)

    @property
    def _expiry(self) -> tuple[str, ...]:
        return ("expires_at",) if self.expire else ()

    def _insert(self, *, expiring: bool) -> Any:
        values: dict[str, Any] = {name: bindparam(name) for name in ("key", "value", "long_key")}
        if expiring:  # Most rows do not expire, and a value more for each costs a tenth of what a row does.
            values["expires_at"] = self._moment(bindparam("ttl", type_=Float))
        return (postgresql if self._postgres else sqlite).insert(self._table).values(**values)

    def _live(self) -> Any:
        """The condition that a row's time is not over."""
        if not self.expire:
            return literal(1) == 1
        expires_at = self._columns.expires_at
        return or_(expires_at.is_(None), expires_at > self._now())

    def _was_live(self) -> Any:
        """The same for RETURNING, in which SQLite 3.40 finds that no column IS NULL."""
        return func.coalesce(self._columns.expires_at > self._now(), true()) if self.expire else literal(1)

    def _now(self) -> Any:
        return func.clock_timestamp() if self._postgres else literal_column(_SQLITE_NOW)

    def _moment(self, seconds: Any) -> Any:
        """The moment in so many seconds; NULL for NULL."""
        if self._postgres:
            return func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, cast(seconds, Float(53)))
        return func.strftime("%Y-%m-%d %H:%M:%f000", "now", cast(seconds, String) + " seconds")

    def _seconds_left(self) -> Any:
        if not self.expire:
            return null()
        expires_at = self._columns.expires_at
        if self._postgres:
            return cast(func.extract("epoch", expires_at - func.clock_timestamp()), Float(53))
        return (func.julianday(expires_at) - func.julianday("now")) * 86_400.0

    def _compare(self, column: Any, sign: str, text: str) -> Any:
        """Compare by bytes: PostgreSQL's index for that has operators of its own, whatever the collation."""
        return column.op(f"~{sign}~" if self._postgres else sign, is_comparison=True)(text)
