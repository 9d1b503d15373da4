"""Settings: documented defaults, the environment and .env, and errors that name the setting and show no secret."""

import os
from pathlib import Path

import pytest

from agent_service.core.errors import ConfigurationError
from agent_service.core.settings import Settings, get_settings, reset_settings


def test_the_defaults_are_the_documented_ones():
    settings = get_settings()

    assert settings.redis_url is None
    assert (settings.cache_default_ttl, settings.cache_key_prefix) == (300, "agent_service")
    assert (settings.session_max_messages, settings.session_expiry_hours) == (100, 24)
    assert settings.database_url.get_secret_value() == "sqlite+aiosqlite:///./agent_service.db"


def test_every_setting_has_a_description():
    assert all(field.description for field in Settings.model_fields.values())


def test_settings_come_from_the_environment_whatever_its_case(monkeypatch):
    monkeypatch.setenv("REDIS_URL", "redis://localhost:6379/0")
    monkeypatch.setenv("cache_default_ttl", "60")
    monkeypatch.setenv("SOMETHING_ELSE", "ignored")

    settings = get_settings()

    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value() == "redis://localhost:6379/0"
    assert settings.cache_default_ttl == 60


def test_settings_come_from_the_env_file_and_the_environment_wins(monkeypatch):
    Path(".env").write_text("CACHE_DEFAULT_TTL=60\nSESSION_MAX_MESSAGES=200\nUNKNOWN=1\n")
    monkeypatch.setenv("CACHE_DEFAULT_TTL", "90")

    assert (get_settings().cache_default_ttl, get_settings().session_max_messages) == (90, 200)


def test_settings_are_loaded_once_until_they_are_reset(monkeypatch):
    first = get_settings()
    monkeypatch.setenv("CACHE_DEFAULT_TTL", "60")

    assert get_settings() is first
    reset_settings()
    assert get_settings().cache_default_ttl == 60


@pytest.mark.parametrize("name", Settings.model_fields)
def test_an_empty_setting_is_an_unset_one(monkeypatch, name):
    unset = getattr(get_settings(), name)
    reset_settings()
    monkeypatch.setenv(name.upper(), "")

    assert getattr(get_settings(), name) == unset


@pytest.mark.parametrize("line", ["{}=", "{}=''", '{}=""', "{}", "export {}="])
@pytest.mark.parametrize("name", ["DATABASE_URL", "DB_POOL_SIZE", "CACHE_L1_ENABLED", "CACHE_KEY_PREFIX"])
def test_an_empty_setting_in_the_env_file_is_an_unset_one(name, line):
    unset = getattr(get_settings(), name.lower())
    reset_settings()
    Path(".env").write_text(line.format(name) + "\n")

    assert getattr(get_settings(), name.lower()) == unset


@pytest.mark.parametrize(
    ("name", "other"),
    [("DB_POOL_SIZE", "9"), ("REDIS_URL", "redis://elsewhere"), ("DATABASE_URL", "sqlite+aiosqlite://")],
)
def test_an_empty_variable_means_the_default_whatever_the_env_file_says(monkeypatch, name, other):
    unset = getattr(get_settings(), name.lower())
    reset_settings()
    Path(".env").write_text(f"{name}={other}\n")
    monkeypatch.setenv(name, "")

    assert getattr(get_settings(), name.lower()) == unset


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "rediss://h:1/2",
        "redis://user:p\u2100ss@h",
        "unix:///s",
        "redis+sentinel://h/m/0",
        "redis+cluster://a:1,b:2",
    ],
)
def test_every_kind_of_redis_url_is_accepted(monkeypatch, url):
    monkeypatch.setenv("REDIS_URL", url)

    assert get_settings().redis_url is not None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REDIS_URL", "http://user:hunter2@host"),
        ("REDIS_URL", "user:hunter2@host:6379"),
        ("REDIS_URL", "redis://user:hunter2@[::1"),
        ("DATABASE_URL", "postgresql://user:hunter2@host/db"),
        ("DATABASE_URL", "mysql+aiomysql://user:hunter2@host/db"),
        ("REDIS_URL", "redis://user:hunter2@host:notaport/0"),
        ("REDIS_URL", "redis://user:hunter2@host:99999"),
        ("REDIS_URL", "redis://user:hunter2@host:0"),
        ("REDIS_URL", "redis://user:hunter2@host/zero"),
        ("REDIS_URL", "redis://user:hunter2@host/-1"),
        ("REDIS_URL", "redis://user:hunter2@host/0/1"),
        ("REDIS_URL", "redis://user:hunter2@host/99999999999"),
        ("REDIS_URL", "redis://user:hunter2@host?db=one"),
        ("REDIS_URL", "redis://user:hunter2@host?decode_responses=true"),
        ("REDIS_URL", "redis://user:hunter2@one,two"),
        ("REDIS_URL", "redis://user:hunter2@ho st"),
        ("REDIS_URL", "redis://user:hunter2@host\n"),
        ("REDIS_URL", "redis://user:hunter2@[zz::1]"),
        ("REDIS_URL", "redis://user:hunter2"),
        ("REDIS_URL", "redis://:hunter2"),
        ("REDIS_URL", "redis+sentinel://user:hunter2@host"),
        ("REDIS_URL", "redis+sentinel://user:hunter2@host:26379/main/x"),
        ("REDIS_URL", "redis+sentinel://user:hunter2@one:1,two:x/main"),
        ("REDIS_URL", "redis+cluster://user:hunter2@one,,two"),
        ("REDIS_URL", "redis+cluster://user:hunter2@one/1"),
        ("REDIS_URL", "unix://user:hunter2@relative.sock"),
        ("DATABASE_URL", "postgresql+asyncpg://user:hunter2@host:notaport/db"),
        ("DATABASE_URL", "postgresql+asyncpg://user:hunter2@host:99999/db"),
        ("DATABASE_URL", "postgresql+asyncpg://user:hunter2@host:0/db"),
        ("DATABASE_URL", "postgresql+asyncpg://user:hunter2"),
        ("DATABASE_URL", "postgresql+asyncpg://user:hun@ter2@host/db"),
        ("DATABASE_URL", "postgresql+asyncpg://user:hunter2@ho st/db"),
        ("DATABASE_URL", "postgresql+asyncpg://user:hunter2@host/db?sslmode=maybe"),
        ("DATABASE_URL", "postgresql+asyncpg://user:hunter2@host/db?nonsense=1"),
        ("DATABASE_URL", "postgresql+asyncpg://user:hunter2@host/db?port=x"),
        ("DATABASE_URL", "sqlite+aiosqlite://data.db"),
        ("DATABASE_URL", "sqlite+aiosqlite:///data.db?nonsense=1"),
        ("DATABASE_REPLICA_URL", "postgresql+asyncpg://user:hunter2@host:notaport/db"),
        ("DATABASE_REPLICA_URL", "postgresql://user:hunter2@host/db"),
        ("DATABASE_REPLICA_URL", "postgresql+asyncpg://user:hunter2@host/db?pgbouncer=true"),
        ("REDIS_TIMEOUT", "nan"),
        ("REDIS_TIMEOUT", "inf"),
        ("REDIS_TIMEOUT", "0"),
        ("CACHE_DEFAULT_TTL", "0"),
        ("CACHE_DEFAULT_TTL", "soon"),
        ("CACHE_MEMORY_MAX_SIZE", "-1"),
        ("CACHE_BREAKER_OPEN_SECONDS", "nan"),
        ("SESSION_MAX_MESSAGES", "0"),
        ("SESSION_EXPIRY_HOURS", "nan"),
        ("DB_POOL_SIZE", "0"),
        ("DB_POOL_TIMEOUT", "inf"),
        ("DB_ECHO_SQL", "perhaps"),
    ],
)
def test_an_unusable_setting_is_refused_by_name_and_without_its_secret(monkeypatch, name, value):
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigurationError, match=f"^{name}: ") as caught:
        get_settings()

    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_all_unusable_settings_are_named_at_once(monkeypatch):
    monkeypatch.setenv("CACHE_DEFAULT_TTL", "0")
    monkeypatch.setenv("DB_POOL_SIZE", "x")

    with pytest.raises(ConfigurationError, match=r"CACHE_DEFAULT_TTL: .*; DB_POOL_SIZE: "):
        get_settings()


def test_settings_never_show_their_secrets(monkeypatch):
    monkeypatch.setenv("REDIS_URL", "redis://user:hunter2@host")

    assert "hunter2" not in repr(get_settings()) + str(get_settings().model_dump())


def test_a_byte_order_mark_hides_no_setting():
    Path(".env").write_bytes(b"\xef\xbb\xbfDB_POOL_SIZE=9\n")

    assert get_settings().db_pool_size == 9


@pytest.mark.parametrize(
    "content",
    [
        "DB_POOL_SIZE=9 # \xfc".encode("latin-1"),
        "DB_POOL_SIZE=9".encode("utf-16"),
        "DB_POOL_SIZE=9".encode("utf-16-le"),
    ],
)
def test_an_env_file_that_is_not_utf8_is_refused_by_name(content):
    Path(".env").write_bytes(content)

    with pytest.raises(ConfigurationError, match=r"\.env.*UTF-8"):
        get_settings()


def test_an_env_file_that_is_a_directory_is_refused_by_name():
    Path(".env").mkdir()

    with pytest.raises(ConfigurationError, match=r"\.env is a directory"):
        get_settings()


def test_a_virtual_environment_named_like_the_env_file_holds_no_settings():
    Path(".env").mkdir()
    Path(".env/pyvenv.cfg").touch()

    assert get_settings().db_pool_size == 5


def test_an_env_file_that_may_not_be_read_is_refused_by_name():
    Path(".env").write_text("DB_POOL_SIZE=9\n")
    Path(".env").chmod(0)
    user = os.geteuid()
    if user == 0:  # who may read everything
        os.seteuid(65534)
    try:
        with pytest.raises(ConfigurationError, match=r"\.env cannot be read"):
            get_settings()
    finally:
        os.seteuid(user)
