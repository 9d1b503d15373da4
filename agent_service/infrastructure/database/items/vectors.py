"""Comparing the vectors of items, on PostgreSQL with pgvector.

Vectors are kept as arrays of numbers, so the tables are the same with and without the extension; a search turns them
into its type. Every vector of the namespace is compared, so the result is exact whatever else a search asks.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Connection

from agent_service.core.errors import ConfigurationError, SessionValueError
from agent_service.infrastructure.database.items.engines import Draft
from agent_service.infrastructure.database.items.operations import Put
from agent_service.infrastructure.database.naming.names import quoted

__all__ = ["MAX_DIMENSIONS", "find_extension", "keep_vectors", "require_vector", "similarity"]

MAX_DIMENSIONS: Final = 16_000
"""What pgvector can compare."""
_EXTENSION: Final = """
SELECT n.nspname FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
WHERE e.extname = 'vector'
"""


def find_extension(connection: Connection) -> str:
    """Return the schema that pgvector is in.

    :raises ConfigurationError: the database cannot compare vectors; the message says what to do.
    """
    if connection.dialect.name != "postgresql":
        raise ConfigurationError(
            "index was given, and SQLite compares no vectors; use PostgreSQL with pgvector, or leave index out: "
            "queries then look for words"
        )
    schema = connection.exec_driver_sql(_EXTENSION).scalar()
    if schema is None:
        raise ConfigurationError(
            "index was given, and this database has no pgvector; install it on the server (apt install "
            "postgresql-NN-pgvector) and run CREATE EXTENSION vector in this database, or leave index out: queries "
            "then look for words"
        )
    return str(schema)


def require_vector(vector: Any, dimensions: int) -> list[float]:
    """Return an embedding as a list of finite numbers.

    :raises SessionValueError: it has other dimensions, or something that is no number.
    """
    if isinstance(vector, str | bytes) or not isinstance(vector, Iterable):
        raise SessionValueError(f"embed gave a {type(vector).__name__} for a text; it must give lists of numbers")
    try:
        numbers = [float(each) for each in vector]
    except (TypeError, ValueError):
        raise SessionValueError("embed gave something that is no number within a vector") from None
    if len(numbers) != dimensions:
        raise SessionValueError(f"embed gave a vector of {len(numbers)} dimensions, and index says dims {dimensions}")
    if not all(map(math.isfinite, numbers)):
        raise SessionValueError("embed gave a vector with NaN or infinity")
    return numbers


def similarity(sql: Draft, vector: Sequence[float], extension: str) -> str:
    """Return a join ``s`` with the best cosine similarity of each item's vectors; NULL: it has none.

    A vector of zeros has no direction; its similarity is 0.
    """
    kind, operator = f"{quoted(extension)}.vector", f"OPERATOR({quoted(extension)}.<=>)"
    given = f"CAST({sql.add(str(list(vector)))} AS text)::{kind}"
    return (
        f" LEFT JOIN LATERAL (SELECT max(1 - coalesce(nullif(v.embedding::{kind} {operator} {given}, 'NaN'), 1)) "  # noqa: S608
        "AS score FROM agent_service_store_vectors AS v WHERE v.tenant_id = i.tenant_id AND v.namespace = i.namespace "
        f"AND v.key = i.key AND cardinality(v.embedding) = {len(vector)}) AS s ON true"
    )


def keep_vectors(connection: Connection, tenant_id: str, puts: Sequence[Put]) -> None:
    """Store the vectors of items in place of those that they had; the items are locked."""
    namespaces, keys = [each.namespace for each in puts], [each.key for each in puts]
    connection.exec_driver_sql(
        "DELETE FROM agent_service_store_vectors AS v USING unnest($2::text[], $3::text[]) AS w (namespace, key) "
        "WHERE v.tenant_id = $1 AND v.namespace = w.namespace AND v.key = w.key",
        (tenant_id, namespaces, keys),
    )
    rows = [(each.namespace, each.key, place, vector) for each in puts for place, vector in each.vectors]
    if rows:
        connection.exec_driver_sql(
            "INSERT INTO agent_service_store_vectors (tenant_id, namespace, key, place, embedding) "
            "SELECT $1, n, k, p, e::real[] FROM unnest($2::text[], $3::text[], $4::text[], $5::text[]) "
            "AS w (n, k, p, e)",
            (tenant_id, *(list(column) for column in zip(*_written(rows), strict=True))),
        )


def _written(rows: Iterable[tuple[str, str, str, list[float]]]) -> Iterable[tuple[str, str, str, str]]:
    for namespace, key, place, vector in rows:
        yield namespace, key, place, f"{{{','.join(map(repr, vector))}}}"
