"""What the package shows: the documented imports, shop windows that hold what they name, docstrings everywhere."""

import importlib
import inspect
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

import agent_service

FOUND = [
    each
    for each in pkgutil.walk_packages(agent_service.__path__, "agent_service.")
    if not each.name.endswith("__main__") and ".migrations" not in each.name
]
MODULES = [each.name for each in FOUND]
SHOP_WINDOWS = ["agent_service", *(each.name for each in FOUND if each.ispkg)]


def test_the_documented_imports_work_as_written():
    # ruff: noqa: PLC0415, F401
    from agent_service.infrastructure.cache import cache_invalidate, cached, get_cache, get_redis_manager
    from agent_service.infrastructure.database import get_session
    from agent_service.infrastructure.database.connection import get_session as the_same
    from agent_service.infrastructure.database.models.session import Session, SessionStatus
    from agent_service.infrastructure.database.repositories import (
        PaginatedResult,
        SessionRepository,
        SessionStats,
    )

    assert get_session is the_same


@pytest.mark.parametrize("name", SHOP_WINDOWS)
def test_a_shop_window_holds_what_it_names_and_names_what_it_holds(name: str):
    window = importlib.import_module(name)
    shown = getattr(window, "__all__", [])

    missing = [each for each in shown if not hasattr(window, each)]
    held = {each for each, value in vars(window).items() if not each.startswith("_") and not inspect.ismodule(value)}

    assert missing == []
    assert held == set(shown)


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("import agent_service", {"redis", "sqlalchemy"}),
        ("from agent_service import get_cache", {"sqlalchemy"}),
        ("from agent_service import get_session, Session", {"redis"}),
    ],
)
def test_nobody_pays_for_a_room_he_does_not_enter(statement: str, unwanted: set[str]):
    program = f"{statement}\nimport sys; print(*sys.modules)"

    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout.split()

    assert unwanted & set(loaded) == set()


ROOMS = [
    ("import agent_service", "agent_service.infrastructure.redis.ops.get"),
    ("import agent_service.infrastructure.redis", "agent_service.infrastructure.redis.ops.get"),
    ("import agent_service", "agent_service.infrastructure.database.get_session"),
    ("import agent_service", "agent_service.context.ShardManager"),
    ("import agent_service", "agent_service.tenants.RedisUser"),
    ("import agent_service.infrastructure", "agent_service.infrastructure.outbox.invalidate_in"),
]
LOOKING = """
import os, sys
import pydantic, redis.asyncio.cluster, sqlalchemy.ext.asyncio, sqlalchemy.orm

for statement, path in zip(sys.argv[1::2], sys.argv[2::2]):
    if os.fork() == 0:
        exec(statement)
        print(path, eval(path), flush=True)
        os._exit(0)
    os.wait()
"""
"""Looks at each in a process without the package: a fork of one that has imported what the package needs."""


@pytest.fixture(scope="module")
def rooms() -> "subprocess.CompletedProcess[str]":
    arguments = [each for room in ROOMS for each in room]
    return subprocess.run([sys.executable, "-c", LOOKING, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("statement", "path"), ROOMS)
def test_a_room_is_an_attribute_of_the_package_around_it(
    rooms: "subprocess.CompletedProcess[str]", statement: str, path: str
):
    assert rooms.stderr == ""
    assert rooms.stdout.splitlines()[ROOMS.index((statement, path))].startswith(f"{path} ")


@pytest.mark.parametrize("name", ["agent_service", "agent_service.infrastructure"])
def test_an_attribute_that_is_not_there_is_an_attribute_error(name: str):
    with pytest.raises(AttributeError, match="no attribute 'unknown'"):
        _ = importlib.import_module(name).unknown


@pytest.mark.parametrize("name", MODULES)
def test_everything_public_in_a_module_has_a_docstring(name: str):
    module = importlib.import_module(name)

    bare = [each for each, thing in public_things(module) if not inspect.getdoc(thing)]

    assert bare == []


def public_things(module: ModuleType) -> Iterator[tuple[str, object]]:
    """The module, what its ``__all__`` names and is made here, and their public methods."""
    yield module.__name__, module
    for name in getattr(module, "__all__", ()):
        thing = getattr(module, name)
        if getattr(thing, "__module__", None) != module.__name__ or not callable(thing):
            continue
        yield name, thing
        if inspect.isclass(thing):
            for member, value in vars(thing).items():
                # A contract's tests are sentences by their names.
                if not member.startswith(("_", "test_")) and (inspect.isroutine(value) or isinstance(value, property)):
                    # getdoc finds the docstring of the interface that a method implements.
                    yield f"{name}.{member}", getattr(thing, member)
