"""Internals of other packages are used in few places, all listed here, and only of packages bounded from above."""

import ast
import importlib
import inspect
import pkgutil
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import agent_service

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())

ACCESSED: dict[tuple[str, str], str] = {
    ("core/values/rows.py", "_sa_class_manager"): "sqlalchemy",
    ("core/values/text_types.py", "_url"): "pydantic",
    ("infrastructure/database/queries/reads.py", "_commit_all"): "sqlalchemy",
    ("infrastructure/database/transactions/own_sessions.py", "_connections"): "sqlalchemy",
    ("infrastructure/database/transactions/own_sessions.py", "_on_connect_isolation_level"): "sqlalchemy",
    ("infrastructure/database/sqlite/connection.py", "_connection"): "aiosqlite",
    ("infrastructure/database/sqlite/connection.py", "_running"): "aiosqlite",
    ("infrastructure/database/sqlite/connection.py", "_tx"): "aiosqlite",
    ("infrastructure/redis/transport/arrived.py", "_reader"): "redis",
    ("infrastructure/redis/transport/arrived.py", "_writer"): "redis",
    ("infrastructure/redis/transport/cluster.py", "_connections"): "redis",
}
"""Names with an underscore of objects that are not ours, by file, and the package that they are of."""

OVERRIDDEN: dict[tuple[str, str], str] = {
    ("EmbeddedConnection", "_connect"): "redis",
    ("PatientConnection", "_connect"): "redis",
    ("TlsConnection", "_connect"): "redis",
    ("TlsConnection", "_connection_arguments"): "redis",
    ("SqliteConnection", "_terminate_graceful_close"): "sqlalchemy",
    ("SqliteConnection", "_terminate_force_close"): "sqlalchemy",
    ("ConnectionPool", "_close_connection"): "sqlalchemy",
    ("ConnectionPool", "_do_get"): "sqlalchemy",
    ("ConnectionPool", "_do_return_conn"): "sqlalchemy",
}
"""Methods with an underscore of other packages' classes that classes of ours override."""

TEXTS: dict[str, str] = {"infrastructure/database/errors/lost.py": "asyncpg"}
"""Where errors are told apart by their texts."""

_OF_THE_LANGUAGE = {"typing", "enum", "abc", "builtins"}
_OF_PYTHON = {
    ("core/values/conformity.py", "_name"),
    ("infrastructure/redis/transport/arrived.py", "_buffer"),
    ("integrations/fastapi/stopping.py", "_kwargs"),
}
_NAMED_TUPLES = {"_fields", "_replace", "_asdict", "_make"}


def accessed() -> Iterator[tuple[str, str]]:
    """Names that ruff calls private accesses, and those that are asked for as texts."""
    package = Path(agent_service.__file__).parent
    for path in package.rglob("*.py"):
        source = path.read_text()
        marked = {number for number, line in enumerate(source.splitlines(), 1) if "noqa: SLF001" in line}
        for node in ast.walk(ast.parse(source)):
            place = str(path.relative_to(package))
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and node.end_lineno in marked:
                if not (isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}):
                    yield place, node.attr
            elif (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in {"getattr", "getattr_static"}
            ):
                name = node.args[1]
                if isinstance(name, ast.Constant) and re.match(r"_[a-z]", str(name.value)):
                    yield place, str(name.value)
            elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("agent_service"):
                for each in (*(node.module or "").split("."), *(alias.name for alias in node.names)):
                    if re.match(r"_[a-z]", each) and each != "__future__":
                        yield place, each


def overridden() -> Iterator[tuple[str, str, str]]:
    for found in pkgutil.walk_packages(agent_service.__path__, "agent_service."):
        if found.name.endswith("__main__"):
            continue
        for cls in vars(importlib.import_module(found.name)).values():
            if inspect.isclass(cls) and cls.__module__.startswith("agent_service"):
                for base in cls.__mro__[1:]:
                    package = base.__module__.split(".")[0]
                    if package not in _OF_THE_LANGUAGE | {"agent_service"}:
                        shared = vars(cls).keys() & vars(base).keys()
                        yield from ((cls.__name__, name, package) for name in shared if re.match(r"_[a-z]", name))


def upper_bound_of(package: str) -> bool:
    requirement = next(each for each in PROJECT["project"]["dependencies"] if re.match(rf"{package}\b", each))
    return "<" in requirement


def test_every_private_access_is_listed():
    assert {each for each in accessed() if each[1] not in _NAMED_TUPLES} - _OF_PYTHON == ACCESSED.keys()


def test_every_private_method_that_is_overridden_is_listed():
    found = {(cls, name): package for cls, name, package in overridden() if name != "_abc_impl"}

    assert found == OVERRIDDEN


@pytest.mark.parametrize("package", sorted({*ACCESSED.values(), *OVERRIDDEN.values(), *TEXTS.values()}))
def test_a_package_whose_internals_are_used_has_an_upper_bound(package: str):
    assert upper_bound_of(package)


def test_the_build_backend_is_one_that_reads_the_license_files():
    backends = [*PROJECT["build-system"]["requires"], *PROJECT["project"]["optional-dependencies"]["test"]]

    found = [re.fullmatch(r"hatchling>=(\d+)\.(\d+)", each) for each in backends if each.startswith("hatchling")]
    assert len(found) == 2
    assert all(each and (int(each[1]), int(each[2])) >= (1, 27) for each in found)


def test_the_tests_work_without_what_audits():
    extras = PROJECT["project"]["optional-dependencies"]

    assert [name for name, needs in extras.items() if any("pip-audit" in each for each in needs)] == ["audit"]
    assert "audit" not in re.search(r"install .*\[([a-z,]+)\]", (ROOT / "Makefile").read_text())[1].split(",")  # type: ignore[index]
