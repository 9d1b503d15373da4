"""The names of all objects of this package in a database: they share a schema (PostgreSQL) and a prefix.

Models, statements and revisions write each name in one form, ``agent_service_`` and the object's own name, which no
application uses by accident: ``agent_service_sessions``. :meth:`TableNames.render` turns these into the names of one
database, in the text of a statement. Nothing else knows what the objects are called, so several databases with
different names can be served by one process. On SQLite the default prefix is ``agent_service_``, and names
stay as they are written. On PostgreSQL they are always qualified with the schema, whatever the ``search_path`` is.
"""

import re
from hashlib import blake2b
from typing import Final

from agent_service.core.memo import Memo, size_of
from agent_service.core.sql_names import LONGEST_NAME

__all__ = ["CHECKPOINTS", "DEFAULT_SCHEMA", "MARK", "RELATIONS", "SEARCH", "TABLES", "TableNames", "quoted"]

MARK: Final = "agent_service_"
"""What every name begins with in our code."""
DEFAULT_SCHEMA: Final = "agent_service"

CHECKPOINTS: Final = (
    "checkpoint_threads",
    "checkpoint_shares",
    "checkpoints",
    "checkpoint_blobs",
    "checkpoint_writes",
)
TABLES: Final = ("sessions", "session_messages", "context_store", "cache_outbox", "fleet", *CHECKPOINTS)
SEARCH: Final = ("session_search", "session_search_entries", "session_search_pending", "session_search_texts")
"""What SQLite's search consists of: tables, and one view."""
RELATIONS: Final = (*TABLES, *SEARCH)

_OWN_PLACE: Final = frozenset(RELATIONS) | {"announce", "fill_tenant"}
"""Names that PostgreSQL looks up in a schema. Names of indexes are looked up where an index is dropped; other names
belong to a table."""
_SAID_IN_FULL: Final = frozenset({"announce", "fill_tenant", "fleet", "version", *CHECKPOINTS})
"""Generic words, and names that tables of a framework have too: they get a prefix even where tables have none."""
_OTHERS: Final = re.compile(
    rf"(?:pk|fk|ck|uq|ix)_(?:{'|'.join(TABLES)})\w*|session_changed|tenant_filled|session_search_\w+"
)
_WORDS: Final = re.compile(
    rf"""
    [eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | --[^\n]* | /\*.*?\*/
    | (?<![\w$.])(?P<quote>"?){MARK}(?P<name>\w+)(?P=quote)(?![\w$])
    | (?<=\.)(?P<after_dot>"?){MARK}(?P<column>\w+)(?P=after_dot)(?![\w$])
    | "(?:[^"]|"")*"
    """,
    re.VERBOSE | re.DOTALL,
)
_LOCKED_TABLES: Final = re.compile(r"\b(?:UPDATE|SHARE)\s+OF\s+(?:[^\s,]+\s*,\s*)*\Z", re.IGNORECASE)
_DROPPED_INDEX: Final = re.compile(
    r"\b(?:DROP|ALTER)\s+INDEX\s+(?:CONCURRENTLY\s+)?(?:IF\s+EXISTS\s+)?\Z", re.IGNORECASE
)
_MARKED: Final = re.compile(rf"\b{MARK}(\w+)")
_REMEMBERED: Final = 1_000
"""Statements whose text is kept; past that, all are forgotten."""
_REMEMBERED_BYTES: Final = 16 << 20
"""Bytes of such texts. A long statement, such as one with thousands of values in an IN, is not kept."""


class TableNames:
    """The names of one database.

    :param schema: where the objects are; None where there are no schemas (SQLite).
    :param prefix: what the names of all objects begin with.
    """

    def __init__(self, schema: str | None, prefix: str) -> None:
        self.schema = schema
        self.prefix = prefix
        self._as_written = schema is None and prefix == MARK
        self._rendered: Memo[str, str] = Memo(_REMEMBERED, _REMEMBERED_BYTES)

    def local(self, name: str) -> str:
        """Return what an object is called within its schema."""
        return f"{self.prefix or (MARK if name in _SAID_IN_FULL else '')}{name}"

    def full(self, name: str) -> str:
        """Return what an object is called anywhere in the database, quoted for a statement."""
        return quoted(self.local(name)) if self.schema is None else f"{quoted(self.schema)}.{quoted(self.local(name))}"

    @property
    def channel(self) -> str:
        """What PostgreSQL's notifications of these tables are sent through."""
        channel = f"{MARK}sessions:{self.schema}:{self.prefix}"
        digest = blake2b(channel.encode(), digest_size=16).hexdigest()
        return channel if len(channel.encode()) <= LONGEST_NAME else f"{MARK}sessions:{digest}"

    def render(self, statement: str) -> str:
        """Return a statement with the names of this database. Comments and what stands in single quotes stay."""
        if self._as_written:
            return statement
        rendered = self._rendered.known.get(statement)
        if rendered is None:
            if MARK not in statement:
                return statement
            rendered = _WORDS.sub(self._render_name, statement)
            self._rendered.keep(statement, rendered, size_of((statement, rendered)))
        return rendered

    def _render_name(self, found: re.Match[str]) -> str:
        name = found["name"] or found["column"]
        if name is None or not (name in _OWN_PLACE or _OTHERS.fullmatch(name)):
            return found[0]
        if self.schema is None:
            return quoted(self.local(name))
        if found["column"]:
            return found[0]
        before = found.string[: found.start()]
        if name in _OWN_PLACE:
            return quoted(self.local(name)) if _LOCKED_TABLES.search(before) else self.full(name)
        return self.full(name) if _DROPPED_INDEX.search(before) else quoted(self.local(name))

    def shown(self, text: str) -> str:
        """Return a text for people, with the names of this database in place of those with ``agent_service_``."""
        return _MARKED.sub(lambda found: self.local(found[1]), text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TableNames) and (self.schema, self.prefix) == (other.schema, other.prefix)

    def __hash__(self) -> int:
        return hash((self.schema, self.prefix))

    def __str__(self) -> str:
        """Say where the tables are: ``agent_service.*``, ``agent_service_*``."""
        return f"{'' if self.schema is None else f'{self.schema}.'}{self.prefix}*"


def quoted(name: str) -> str:
    """Return a name as a statement takes it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'
