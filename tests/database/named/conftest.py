"""The same tests under other names: a schema and prefix that need quotes, and the names of earlier versions."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from agent_service.core.settings import reset_settings
from agent_service.infrastructure.database.engine import DatabaseManager
from tests.database.earlier import make_earlier
from tests.servers.postgres import PostgresServer

ODD = {"schema": "My-Schema", "table_prefix": "x_"}
EARLIER = {"schema": "public", "table_prefix": ""}
LAYOUTS = ("odd", "earlier")


async def make(url: str, layout: str) -> None:
    """Make an empty database of a layout; what earlier versions had stored is removed."""
    # Said in full, whatever the settings of the test that comes first.
    database = DatabaseManager(url, **(ODD if layout == "odd" else EARLIER))  # type: ignore[arg-type]
    await database.upgrade()
    async with database.session() as db:
        for table in ("sessions", "context_store", "cache_outbox"):
            await db.execute(text(f"DELETE FROM agent_service_{table}"))
    await database.close()


def made(url: str, layout: str) -> str:
    if layout == "earlier":
        make_earlier(url)
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(make(url, layout))).result()
    return url


@pytest.fixture(scope="session")
def named_templates(postgres_server: PostgresServer) -> Iterator[dict[str, str]]:
    """A migrated database of each layout that tests are copied from."""
    names = {layout: f"named_{layout}_template" for layout in LAYOUTS}
    for layout, name in names.items():
        made(postgres_server.create_database(name), layout)
    yield names
    for name in names.values():
        postgres_server.drop_database(name)


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name: str = request.param
    if name == "odd":
        for setting, value in ODD.items():
            monkeypatch.setenv(f"DB_{setting.upper()}", value)
        reset_settings()
    return name


@pytest.fixture
def postgres_template(request: pytest.FixtureRequest, layout: str) -> str:
    templates: dict[str, str] = request.getfixturevalue("named_templates")
    return templates[layout]


@pytest.fixture(scope="session")
def named_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The content of a migrated database of SQLite of each layout."""
    folder = tmp_path_factory.mktemp("named")
    for layout in LAYOUTS:
        made(f"sqlite+aiosqlite:///{folder / layout}", layout)
    return {layout: (folder / layout).read_bytes() for layout in LAYOUTS}


@pytest.fixture
def sqlite_template(named_files: dict[str, bytes], layout: str) -> bytes:
    return named_files[layout]


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, layout: str) -> str:
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url
