"""What a PostgreSQL URL says in its query, followed by a real server."""

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text

from agent_service.core.errors import DatabaseError, DatabaseUnavailableError
from agent_service.core.urls.database import parse_database_url
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.postgres.connections import connect_options
from tests.servers.pgbouncer import by_way_of, running_pgbouncer
from tests.servers.postgres import PostgresServer, _in_thread, running_postgres

ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[PostgresServer, Path]]:
    """A server that speaks TLS, and the certificate it shows, which is its own authority."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl command to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    request = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([openssl, *request.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    with running_postgres() as server:
        _in_thread(_switch_tls_on(server.url, certificate, key))
        yield server, certificate


async def _switch_tls_on(url: str, certificate: Path, key: Path) -> None:
    connection = await asyncpg.connect(url)
    _install(Path(await connection.fetchval("SHOW data_directory")), certificate, key)
    await connection.execute("ALTER SYSTEM SET ssl = on")
    await connection.execute("SELECT pg_reload_conf()")
    await connection.close()
    while True:  # until the server has read it
        connection = await asyncpg.connect(url)
        switched = await connection.fetchval("SHOW ssl")
        await connection.close()
        if switched == "on":
            return


def _install(data: Path, certificate: Path, key: Path) -> None:
    owner = data.stat()
    for source, name in ((certificate, "server.crt"), (key, "server.key")):
        shutil.copy(source, data / name)
        os.chown(data / name, owner.st_uid, owner.st_gid)
        (data / name).chmod(0o600)


async def ask(url: str, query: str, **options: Any) -> Any:
    database = DatabaseManager(url, **options)
    try:
        async with database.session() as db:
            return (await db.execute(text(query))).scalar_one()
    finally:
        await database.close()


@pytest.mark.parametrize("name", ["sslmode", "ssl"])
@pytest.mark.parametrize(
    ("mode", "encrypted"),
    [
        ("disable", False),
        ("allow", False),
        ("prefer", True),
        ("require", True),
        ("verify-ca", True),
        ("verify-full", True),
    ],
)
async def test_every_mode_of_tls_is_followed(
    tls_server: tuple[PostgresServer, Path], name: str, mode: str, encrypted: bool
) -> None:
    server, certificate = tls_server
    url = f"{server.database_url('postgres')}?{name}={mode}&sslrootcert={certificate}"

    assert await ask(url, ENCRYPTED) is encrypted


@pytest.mark.parametrize("query", ["sslmode=verify-full&sslrootcert=system", "sslrootcert=system"])
async def test_a_certificate_that_the_system_does_not_trust_is_refused(
    tls_server: tuple[PostgresServer, Path], query: str
) -> None:
    url = f"{tls_server[0].database_url('postgres')}?{query}"

    with pytest.raises(DatabaseUnavailableError, match=r"(?i)certificate.*check DATABASE_URL"):
        await ask(url, ENCRYPTED)


async def test_a_missing_root_certificate_is_named(tls_server: tuple[PostgresServer, Path], tmp_path: Path) -> None:
    url = f"{tls_server[0].database_url('postgres')}?sslmode=verify-full&sslrootcert={tmp_path / 'none.pem'}"

    with pytest.raises(DatabaseUnavailableError, match=r"sslrootcert.*none\.pem.*check DATABASE_URL"):
        await ask(url, ENCRYPTED)


async def test_a_server_without_tls_is_refused_where_it_is_required(postgres_url: str) -> None:
    with pytest.raises(DatabaseUnavailableError, match=r"(?i)ssl.*check DATABASE_URL"):
        await ask(f"{postgres_url}?sslmode=require", "SELECT 1")


async def test_the_server_is_told_name_and_options(postgres_url: str) -> None:
    url = f"{postgres_url}?application_name=my%20app&options=-c%20search_path%3Dours%20-c%20geqo%3Doff"
    shown = "SELECT concat_ws('|', current_setting('application_name'), current_setting('search_path'), {})"

    rest = "current_setting('geqo'), current_setting('statement_timeout')"
    assert await ask(url, shown.format(rest)) == "my app|ours|off|30s"


async def test_of_several_hosts_the_one_that_may_be_written_is_taken(postgres_url: str) -> None:
    url = postgres_url.replace("@127.0.0.1", "@127.0.0.1:1,127.0.0.1") + "?target_session_attrs=read-write"

    assert await ask(url, "SELECT 1") == 1


async def test_a_standby_is_refused_where_none_is_wanted(postgres_url: str) -> None:
    with pytest.raises(DatabaseUnavailableError, match="check DATABASE_URL"):
        await ask(f"{postgres_url}?target_session_attrs=standby", "SELECT 1")


async def test_the_query_may_say_where_the_server_is(postgres_url: str) -> None:
    authority, _, name = postgres_url.rpartition("/")
    host, _, port = authority.rpartition("@")[2].partition(":")

    assert await ask(f"postgresql+asyncpg:///{name}?host={host}&port={port}&user=postgres", "SELECT 1") == 1


async def test_a_connection_takes_no_longer_than_the_url_allows(postgres_url: str) -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    async with asyncio.timeout(8):  # less than the ten seconds of a URL that says nothing
        with pytest.raises(DatabaseUnavailableError, match="check DATABASE_URL"):
            await ask(f"postgresql+asyncpg://u@127.0.0.1:{port}/db?connect_timeout=0.2", "SELECT 1")
    silent.close()
    await silent.wait_closed()


class TestPgbouncerThatNobodyToldOf:
    """DB_PGBOUNCER is not set."""

    async def test_a_refused_start_names_the_setting(self, postgres_server: PostgresServer, postgres_url: str) -> None:
        with running_pgbouncer(postgres_server) as port:
            with pytest.raises(DatabaseUnavailableError, match="set DB_PGBOUNCER=true"):
                await ask(by_way_of(port, postgres_url), "SELECT 1")
            health = await _health(by_way_of(port, postgres_url))

        assert "set DB_PGBOUNCER=true" in health["error"]

    async def test_prepared_statements_of_others_name_the_setting(
        self, postgres_server: PostgresServer, postgres_url: str
    ) -> None:
        with running_pgbouncer(postgres_server, ignoring="statement_timeout,default_transaction_isolation") as port:
            database = DatabaseManager(by_way_of(port, postgres_url), pool_size=4)

            async def use() -> None:
                for _ in range(50):
                    async with database.session() as db:
                        await db.execute(text("SELECT 1 FROM pg_sleep(0.001)"))

            # Each connection prepares the statement on one of two servers, and sooner or later meets the other.
            results = await asyncio.gather(*(use() for _ in range(4)), return_exceptions=True)
            await database.close()

        failures = {type(each): str(each) for each in results if each is not None}
        assert list(failures) == [DatabaseError]
        assert re.search("prepared statement.*set DB_PGBOUNCER=true", failures[DatabaseError])

    async def test_an_option_that_pgbouncer_refuses_is_named_where_the_setting_is_set(
        self, postgres_server: PostgresServer, postgres_url: str
    ) -> None:
        with running_pgbouncer(postgres_server) as port:
            url = f"{by_way_of(port, postgres_url)}?options=-c%20geqo%3Doff"
            with pytest.raises(DatabaseUnavailableError, match=r"unsupported startup parameter.*check DATABASE_URL"):
                await ask(url, "SELECT 1", pgbouncer=True)


async def _health(url: str) -> dict[str, Any]:
    database = DatabaseManager(url)
    health = await database.health_check()
    await database.close()
    return health


def test_a_very_short_statement_timeout_is_not_rounded_to_none() -> None:
    target = parse_database_url("postgresql+asyncpg://host/name")

    options = connect_options(target, 0.0004, pgbouncer=False)

    assert options["server_settings"]["statement_timeout"] == "1"
