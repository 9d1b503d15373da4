"""Settings from the environment and ``.env``. Only factories read them; all other code is given plain values."""

from functools import lru_cache
from pathlib import Path
from typing import Final

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from agent_service.core.errors import ConfigurationError
from agent_service.core.sql_names import require_schema, require_table_prefix
from agent_service.core.urls.database import parse_database_url
from agent_service.core.urls.redis import parse_redis_url

__all__ = ["Settings", "get_settings", "reset_settings"]

_ENV_FILE: Final = Path(".env")


class Settings(BaseSettings):
    """Every setting, its default and its unit. Names are case-insensitive; unknown names are ignored, and so are empty
    values: ``DB_POOL_SIZE=`` leaves the default.
    """

    model_config = SettingsConfigDict(
        env_file=_ENV_FILE,
        env_file_encoding="utf-8-sig",  # which reads UTF-8 with and without a byte order mark
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,  # the value may be a URL, and an error would show its password
    )

    redis_url: SecretStr | None = Field(
        default=None,
        description="Where Redis is: redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://; "
        "embedded:// or embedded:///folder starts a private one. "
        "Unset: caches live in this process's memory and no connection is attempted.",
    )
    redis_timeout: float = Field(
        default=0.5,
        gt=0,
        le=3600,
        allow_inf_nan=False,
        description="Seconds one Redis operation may take, from when it has a connection.",
    )
    redis_wait_replicas: int = Field(
        default=0,
        ge=0,
        description="Replicas that must confirm an invalidation of a cache before it counts as done (WAIT). 0: none.",
    )
    redis_wait_timeout: float = Field(
        default=0.1,
        gt=0,
        le=3600,
        allow_inf_nan=False,
        description="Seconds they have for it; below REDIS_TIMEOUT. What they miss is sent again.",
    )
    cache_default_ttl: int = Field(default=300, ge=1, description="Seconds an entry lives when no TTL is given.")
    cache_key_prefix: str = Field(
        default="agent_service", min_length=1, description="First component of every physical Redis key."
    )
    cache_memory_max_size: int = Field(
        default=10_000, ge=1, description="Entries per namespace in memory; the least recently used leave first."
    )
    cache_breaker_open_seconds: float = Field(
        default=0.5,
        gt=0,
        le=30,
        description="Seconds the circuit breaker first waits before it probes Redis; doubles with jitter up to 30.",
    )
    cache_journal_max: int = Field(
        default=10_000,
        ge=1,
        description="Invalidations remembered during an outage, in as many KiB, before they collapse into one.",
    )
    cache_lease_seconds: float = Field(
        default=10.0,
        gt=0,
        le=3600,
        allow_inf_nan=False,
        description="Seconds after which a process that died while it loaded a value, or wrote a context, "
        "no longer counts.",
    )
    cache_l1_enabled: bool = Field(
        default=False, description="Keep copies of Redis entries in memory, dropped when Redis says that they changed."
    )
    cache_l1_max_staleness: float = Field(
        default=1.0,
        ge=0.01,
        le=3600,
        allow_inf_nan=False,
        description="Seconds after a change by another process for which a copy of the old value may still be read.",
    )
    context_cache_ttl: float = Field(
        default=300.0,
        gt=0,
        le=876_000 * 3600,
        allow_inf_nan=False,
        description="Seconds a context lives in the cache before a database.",
    )
    dyna_context_config_path: Path | None = Field(
        default=None,
        description="File that says where contexts live (YAML, JSON or TOML). Unset: in this process's memory.",
    )
    session_max_messages: int = Field(
        default=100, ge=1, description="Messages after which appending to a session logs a warning."
    )
    session_expiry_hours: float = Field(
        default=24,
        gt=0,
        le=876_000,
        allow_inf_nan=False,
        description="Hours of inactivity after which a session expires.",
    )
    database_url: SecretStr = Field(
        default=SecretStr("sqlite+aiosqlite:///./agent_service.db"),
        description="Where sessions live: sqlite+aiosqlite:///file.db or postgresql+asyncpg://user:password@host/name.",
    )
    database_replica_url: SecretStr | None = Field(
        default=None,
        description="Where reads that may lag go: a PostgreSQL replica. Unset, or while it is away: DATABASE_URL.",
    )
    db_schema: str | None = Field(
        default=None,
        description="PostgreSQL schema of the package's tables. Unset: agent_service, or where an earlier version put "
        "them. SQLite has no schemas and ignores it.",
    )
    db_table_prefix: str | None = Field(
        default=None,
        description="What the names of the package's tables, indexes and all else in the database begin with. "
        "Unset: nothing on PostgreSQL, agent_service_ on SQLite.",
    )
    db_pool_size: int = Field(default=5, ge=1, description="PostgreSQL connections kept open per process.")
    db_max_overflow: int = Field(default=10, ge=0, description="PostgreSQL connections beyond the pool under load.")
    db_pool_timeout: float = Field(
        default=30.0, gt=0, allow_inf_nan=False, description="Seconds to wait for a free connection."
    )
    db_pool_recycle: int = Field(
        default=1800, ge=-1, description="Seconds after which a connection is replaced; -1: never."
    )
    db_statement_timeout: float = Field(
        default=30.0,
        ge=0.001,
        le=86_400,
        allow_inf_nan=False,
        description="Seconds one PostgreSQL statement may take, waiting for locks included.",
    )
    db_pgbouncer: bool = Field(
        default=False, description="DATABASE_URL leads to a pgbouncer in transaction mode, which keeps no statements."
    )
    db_row_security: bool = Field(
        default=False,
        description="Tell PostgreSQL each transaction's tenant, as it asks for after `agent-service db enable-rls`.",
    )
    db_echo_sql: bool = Field(default=False, description="Log every SQL statement (development only).")

    @model_validator(mode="before")
    @classmethod
    def _empty_means_unset(cls, values: dict[str, object]) -> dict[str, object]:
        return {name: value for name, value in values.items() if value != ""}

    @field_validator("db_schema")
    @classmethod
    def _possible_schema(cls, value: str | None) -> str | None:
        return None if value is None else require_schema(value)

    @field_validator("db_table_prefix")
    @classmethod
    def _possible_prefix(cls, value: str | None) -> str | None:
        return None if value is None else require_table_prefix(value)

    @field_validator("redis_url")
    @classmethod
    def _usable_redis_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parse_redis_url(value.get_secret_value())
        return value

    @field_validator("database_url", "database_replica_url")
    @classmethod
    def _usable_database_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parse_database_url(value.get_secret_value())
        return value


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Load the settings once per process.

    :raises ConfigurationError: if a setting cannot be used or ``.env`` cannot be read; it names each such setting and
        never shows the value of a URL.
    """
    # Raised outside of the handlers, so that it is chained to nothing: the originals hold the input, which may hold a
    # password.
    try:
        _check_env_file()
        return Settings()
    except UnicodeDecodeError as exc:
        problem = f".env is not UTF-8 ({exc.reason} at byte {exc.start}); save it as UTF-8"
    except OSError as exc:
        raise ConfigurationError(f".env cannot be read ({exc.strerror}); correct its permissions or remove it") from exc
    except ValidationError as exc:
        problem = "; ".join(_problem(error["loc"], error["msg"]) for error in exc.errors(include_input=False))
    raise ConfigurationError(problem) from None


def _check_env_file() -> None:
    """Refuse a ``.env`` that would be skipped silently."""
    if _ENV_FILE.is_dir():
        if not (_ENV_FILE / "pyvenv.cfg").exists():  # a virtual environment may have that name
            raise ConfigurationError(".env is a directory; settings stand in a file: remove it, or mount a file there")
    elif _ENV_FILE.is_file() and "\0" in _ENV_FILE.read_text("utf-8-sig"):
        raise ConfigurationError(".env holds U+0000, so it is UTF-16 or no text; save it as UTF-8")


def _problem(location: tuple[int | str, ...], message: str) -> str:
    name = str(location[0]).upper() if location else "settings"
    return f"{name}: {message.removeprefix('Value error, ')}"


def reset_settings() -> None:
    """Forget the loaded settings, so that the next :func:`get_settings` reads the environment again."""
    get_settings.cache_clear()
