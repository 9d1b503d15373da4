"""Conditions on many sessions, given by their keys in one parameter."""

import json
from collections.abc import Collection
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, String, Uuid, bindparam, column, func, select, tuple_
from sqlalchemy.dialects.postgresql import ARRAY

__all__ = ["SessionKey", "in_keys"]


class SessionKey(NamedTuple):
    """The primary key of a session."""

    tenant_id: str
    id: UUID


def in_keys(dialect: str, tenant_id: Any, session_id: Any, keys: Collection[SessionKey]) -> ColumnElement[bool]:
    """The condition that these two columns hold the key of one of the sessions."""
    if dialect == "postgresql":
        tenants = bindparam(None, [key.tenant_id for key in keys], ARRAY(String))
        ids = bindparam(None, [key.id for key in keys], ARRAY(Uuid()))
        given: Any = func.unnest(tenants, ids).table_valued("tenant_id", "id").render_derived()
        return tuple_(tenant_id, session_id).in_(select(given.c.tenant_id, given.c.id))
    listed = json.dumps([[key.tenant_id, key.id.hex] for key in keys])
    each: Any = func.json_each(bindparam(None, listed, String)).table_valued(column("value", String))
    return tuple_(tenant_id, session_id).in_(
        select(func.json_extract(each.c.value, "$[0]"), func.json_extract(each.c.value, "$[1]"))
    )
