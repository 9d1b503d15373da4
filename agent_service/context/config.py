"""The context configuration file: ``context.yaml``, or the same in JSON or TOML.

::

    context:
      backend: cache_backed        # memory | redis | database | cache_backed
      redis:
        url: redis://localhost:6379/0
        prefix: bro
      database:
        url: postgresql+asyncpg://agent@localhost/agent
"""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from agent_service.core.errors import ContextConfigError

__all__ = ["ContextConfig", "load_context_config"]


class RedisSection(BaseModel):
    """``context.redis``."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    url: SecretStr = Field(min_length=1)
    prefix: str = "dynagent_ctx"


class DatabaseSection(BaseModel):
    """``context.database``."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    url: SecretStr = Field(min_length=1)


class ContextConfig(BaseModel):
    """``context``: which backend, and where it is. Without a section, REDIS_URL and DATABASE_URL say where."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    backend: Literal["memory", "redis", "database", "cache_backed"] = "memory"
    redis: RedisSection | None = None
    database: DatabaseSection | None = None


def load_context_config(path: Path) -> ContextConfig:
    """Read a configuration file, by its suffix as YAML, JSON or TOML.

    :raises ContextConfigError: naming the file, the key and the remedy; secrets are not shown.
    """
    content = _parse(path)
    if not isinstance(content, dict) or not isinstance(content.get("context"), dict):
        raise ContextConfigError(f"{path}: there is no section 'context'; put everything under 'context:'")
    try:
        return ContextConfig.model_validate(content["context"])
    except ValidationError as exc:
        problems = "; ".join(_problem(error) for error in exc.errors(include_input=False, include_url=False))
    # Chained to nothing: the original holds the input, which may hold a password.
    raise ContextConfigError(f"{path}: {problems}") from None


def _problem(error: Any) -> str:
    key = ".".join(("context", *map(str, error["loc"])))
    if error["type"] == "extra_forbidden":
        return f"{key} is unknown; remove it"
    if error["type"] == "missing":
        return f"{key} is missing; add it"
    return f"{key}: {error['msg']}; correct it"


def _parse(path: Path) -> Any:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ContextConfigError(f"{path}: the suffix must be one of {', '.join(_READERS)}; rename the file")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ContextConfigError(f"{path}: cannot be read ({exc}); check DYNA_CONTEXT_CONFIG_PATH") from exc
    try:
        return reader(text)
    except ImportError as exc:
        raise ContextConfigError(
            f"{path}: reading YAML needs PyYAML; pip install 'agent-service[yaml]', or write the file as JSON or TOML"
        ) from exc
    except ValueError as exc:
        line = getattr(exc, "lineno", None)
        place = "" if line is None else f" (line {line})"
    # Chained to nothing: parsers quote the line, which may hold a password.
    raise ContextConfigError(f"{path}: is no valid {path.suffix[1:].upper()}{place}; correct it") from None


def _read_yaml(text: str) -> Any:
    import yaml  # noqa: PLC0415 - an extra

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as exc:
        problem = f"no YAML: {type(exc).__name__}"
    raise ValueError(problem) from None


_READERS: dict[str, Callable[[str], Any]] = {
    ".yaml": _read_yaml,
    ".yml": _read_yaml,
    ".json": json.loads,
    ".toml": tomllib.loads,
}
