"""Durations and connections by the semantic conventions."""

import asyncio
import subprocess
import sys
from typing import Any

import pytest
from opentelemetry.semconv._incubating.metrics import db_metrics as incubating
from opentelemetry.semconv.attributes import db_attributes, error_attributes, server_attributes
from opentelemetry.semconv.metrics import db_metrics
from sqlalchemy import text

from agent_service.core.errors import RedisUnavailableError
from agent_service.core.tracing import Server
from agent_service.infrastructure.database import SessionWriter
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.integrations.otel import names
from tests.integrations.otel.seen import Seen
from tests.servers.ports import free_port


def test_the_names_are_those_of_the_conventions() -> None:
    assert db_metrics.DB_CLIENT_OPERATION_DURATION == "db.client.operation.duration"
    assert incubating.DB_CLIENT_CONNECTION_COUNT == "db.client.connection.count"
    assert incubating.DB_CLIENT_CONNECTION_MAX == "db.client.connection.max"
    assert names.OPERATION == db_attributes.DB_OPERATION_NAME
    assert names.COLLECTION == db_attributes.DB_COLLECTION_NAME
    assert names.ERROR_TYPE == error_attributes.ERROR_TYPE
    assert set(names.server_attributes(Server("redis", "0", "h", 1))) == {
        db_attributes.DB_SYSTEM_NAME,
        db_attributes.DB_NAMESPACE,
        server_attributes.SERVER_ADDRESS,
        server_attributes.SERVER_PORT,
    }


async def test_redis_commands_are_measured_by_name_and_server(redis_url: str, seen: Seen) -> None:
    client = RedisClient(redis_url)
    await client.execute("SET", "k", "v")
    await client.get(b"k")
    await client.pipeline([("GET", b"k"), ("GET", b"k")])
    await client.aclose()

    found = seen.durations(db__system__name="redis")
    assert {each["db.operation.name"] for each in found} == {"SET", "MGET", "PIPELINE"}
    assert {each["server.address"] for each in found} == {"127.0.0.1"}
    assert all(isinstance(each["server.port"], int) for each in found)
    assert all(each["db.namespace"].isdigit() for each in found)


async def test_a_failed_command_has_the_class_of_its_error(seen: Seen) -> None:
    client = RedisClient(f"redis://u:s3cret@127.0.0.1:{free_port()}/3")
    with pytest.raises(RedisUnavailableError):
        await client.ping()
    await client.aclose()

    (found,) = seen.durations(db__operation__name="PING")
    assert found["error.type"] == "RedisUnavailableError"
    assert found["db.namespace"] == "3"
    assert "s3cret" not in str(found)


async def test_the_duration_is_in_seconds_with_the_advised_bounds(redis_url: str, seen: Seen) -> None:
    client = RedisClient(redis_url)
    await client.ping()
    await client.aclose()

    metric = seen.metric("db.client.operation.duration")
    (point,) = metric.data.data_points
    assert metric.unit == "s"
    assert point.explicit_bounds == (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
    assert 0 < point.sum < 5


async def test_appends_are_measured_where_they_are_sent_and_batches_as_one_operation(
    database: DatabaseManager, seen: Seen
) -> None:
    async with database.session() as db:
        id_ = (await SessionRepository(db).create(Session(user_id="ada"))).id
    async with SessionWriter(database) as writer:
        await writer.append(id_, {"role": "user"})
        await asyncio.gather(*(writer.append(id_, {"role": "user"}) for _ in range(10)))

    counts = {
        point.attributes["db.operation.name"]: point.count
        for point in seen.points("db.client.operation.duration")
        if point.attributes.get("db.collection.name") == "session_messages"
    }
    assert counts == {"append": 2}


async def test_statements_are_measured_by_their_verb_and_the_errors_by_class(
    database: DatabaseManager, seen: Seen
) -> None:
    async with database.session() as db:
        await db.execute(text("SELECT 1"))
        with pytest.raises(Exception, match="nowhere"):
            await db.execute(text("SELECT * FROM nowhere"))
        await db.rollback()

    system = "sqlite" if database.embedded else "postgresql"
    found = seen.durations(db__system__name=system, db__operation__name="SELECT")
    assert [each.get("error.type") is not None for each in sorted(found, key=len)] == [False, True]


async def test_engines_of_others_are_not_watched(tmp_path: Any, seen: Seen) -> None:
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415 - of the application's own

    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/own.db")
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    await engine.dispose()

    assert seen.durations(db__operation__name="SELECT", db__namespace=f"{tmp_path}/own.db") == []


async def test_connections_are_counted_by_state(database: DatabaseManager, seen: Seen) -> None:
    namespace = str(database).rpartition("/")[2]

    def states() -> dict[str, int]:
        return {
            point.attributes["db.client.connection.state"]: point.value
            for point in seen.points("db.client.connection.count")
            if point.attributes["db.client.connection.pool.name"].endswith(f"/{namespace}")
        }

    async with database.session() as one:
        await one.execute(text("SELECT 1"))
        during = states()
    after = states()
    limits = [point.value for point in seen.points("db.client.connection.max")]

    assert during["used"] == 1
    assert after == {"used": 0, "idle": during["idle"] + 1}
    assert 15 in limits


def test_the_package_does_not_import_it_where_it_is_not_asked_for() -> None:
    script = (
        "import sys, agent_service\n"
        "from agent_service import cached, get_cache, get_session, run_cleanup\n"
        "print([each for each in sys.modules if each.startswith('agent_service.integrations')])"
    )

    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert told.stdout.strip() == "[]"
