"""How statements about items are written for each engine. Parameters are numbered on both."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

from agent_service.core.clock import SYSTEM_CLOCK
from agent_service.infrastructure.database.items.places import end_of
from agent_service.infrastructure.database.values.conditions import ORDERS, Condition
from agent_service.infrastructure.database.values.documents import dumps, read_json
from agent_service.infrastructure.database.values.types import sqlite_moment

__all__ = ["Draft", "Postgres", "Sqlite", "draft"]

_SIGNS: Final = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}


@dataclass(slots=True)
class Draft:
    """A statement under way: gives each parameter its number."""

    parameters: list[Any] = field(default_factory=list)
    sign: ClassVar[str] = "$"

    def add(self, value: Any) -> str:
        """Add a parameter, and return what stands for it."""
        self.parameters.append(value)
        return f"{self.sign}{len(self.parameters)}"

    def under(self, prefix: str) -> str:
        """Return the condition that a row belongs to a namespace, or one below it."""
        if not prefix:
            return "true"
        least, below = self.add(prefix), self.add(end_of(prefix))
        return f"{self.compare('i.namespace', '>=', least)} AND {self.compare('i.namespace', '<', below)}"

    def compare(self, left: str, sign: str, right: str) -> str:
        """Return a comparison of texts in the order of their bytes."""
        raise NotImplementedError

    def now(self) -> str:
        """Return the present moment, by the clock of the database."""
        raise NotImplementedError

    def live(self) -> str:
        """Return the condition that the time of a row is not over."""
        return f"(i.expires_at IS NULL OR i.expires_at > {self.now()})"

    def places(self, places: Iterable[tuple[str, str]]) -> str:
        """Return a table ``w`` of namespaces and keys."""
        raise NotImplementedError

    def look_up(self, condition: str) -> str:
        """Return a join of items that a condition finds by their key, one after the other.

        A plain join is planned by estimates: without statistics it may read all items of a tenant, even for each key.
        """
        raise NotImplementedError

    def filtered(self, conditions: Iterable[Condition]) -> list[str]:
        """Return conditions about the value of a row."""
        raise NotImplementedError

    def lower(self, text: str) -> str:
        """Return a text in lower case."""
        raise NotImplementedError

    def position(self, text: str, part: str) -> str:
        """Return where a part first stands in a text, 0: nowhere."""
        raise NotImplementedError

    def moment(self, stored: Any) -> datetime:
        """Return a moment that was read."""
        raise NotImplementedError

    @staticmethod
    def read(value: Any) -> dict[str, Any]:
        """Return a value that was read."""
        document: dict[str, Any] = read_json(value)
        return document


class Postgres(Draft):
    """PostgreSQL's; its index by bytes has operators of its own, whatever the collation."""

    order: ClassVar[str] = "i.namespace USING ~<~"

    def compare(self, left: str, sign: str, right: str) -> str:
        return f"{left} ~{sign}~ {right}"

    def now(self) -> str:
        return "clock_timestamp()"

    def places(self, places: Iterable[tuple[str, str]]) -> str:
        namespaces, keys = zip(*places, strict=True)
        return f"unnest({self.add(list(namespaces))}::text[], {self.add(list(keys))}::text[]) AS w (namespace, key)"

    def look_up(self, condition: str) -> str:
        return (
            "CROSS JOIN LATERAL (SELECT * FROM agent_service_store_items AS i "  # noqa: S608 - numbers of parameters
            f"WHERE {condition} OFFSET 0) AS i"
        )

    def filtered(self, conditions: Iterable[Condition]) -> list[str]:
        return [self._holds(each) for each in conditions]

    def _holds(self, condition: Condition) -> str:
        # A path of texts reaches into lists as well; that a list is one, and how long, is a condition of its own.
        found = f"i.value #> {self.add([str(step) for step in condition.path])}::text[]"
        kind, operand = condition.operator, condition.operand
        if kind == "object":
            return f"jsonb_typeof({found}) = 'object'"
        if kind == "list":
            long = f"jsonb_array_length({found}) = {self.add(operand)}::int"
            return f"CASE WHEN jsonb_typeof({found}) = 'array' THEN {long} ELSE false END"
        if kind in ORDERS:
            if isinstance(operand, str):
                typed, value, given = "string", f"({found} #>> '{{}}') COLLATE \"C\"", f"{self.add(operand)}::text"
            else:
                typed, value, given = "number", f"({found})::numeric", f"{self.add(dumps(operand))}::text::numeric"
            compared = f"{value} {_SIGNS[kind]} {given}"
            return f"CASE WHEN jsonb_typeof({found}) = '{typed}' THEN {compared} ELSE false END"
        sign = "=" if kind == "$eq" else "<>"
        return f"coalesce({found}, 'null'::jsonb) {sign} {self.add(dumps(operand))}::text::jsonb"

    def lower(self, text: str) -> str:
        return f"lower({text})"

    def position(self, text: str, part: str) -> str:
        return f"strpos({text}, {part})"

    def moment(self, stored: Any) -> datetime:
        moment: datetime = stored.astimezone(UTC)
        return moment


class Sqlite(Draft):
    """SQLite's, whose clock is that of its host, and which compares texts by bytes."""

    sign = "?"
    order: ClassVar[str] = "i.namespace"

    def compare(self, left: str, sign: str, right: str) -> str:
        return f"{left} {sign} {right}"

    def now(self) -> str:
        return self.add(sqlite_moment(SYSTEM_CLOCK.now()))

    def places(self, places: Iterable[tuple[str, str]]) -> str:
        listed = self.add(dumps([list(each) for each in places]))
        columns = "json_extract(value, '$[0]') AS namespace, json_extract(value, '$[1]') AS key"
        return f"(SELECT {columns} FROM json_each({listed})) AS w"  # noqa: S608 - a number of a parameter

    def look_up(self, condition: str) -> str:
        return f"CROSS JOIN agent_service_store_items AS i ON {condition}"

    def filtered(self, conditions: Iterable[Condition]) -> list[str]:
        return [f"json_holds(i.value, {self.add(dumps([[list(each.path), *each[1:]] for each in conditions]))})"]

    def lower(self, text: str) -> str:
        return f"lower_unicode({text})"

    def position(self, text: str, part: str) -> str:
        return f"instr({text}, {part})"

    def moment(self, stored: Any) -> datetime:
        return datetime.fromisoformat(stored).replace(tzinfo=UTC)


def draft(dialect: str) -> Postgres | Sqlite:
    """Return the beginning of a statement for an engine."""
    return Postgres() if dialect == "postgresql" else Sqlite()
