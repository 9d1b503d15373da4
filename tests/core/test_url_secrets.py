"""No part of a password appears in any text that is made from a URL, whatever stands in it and whatever is wrong."""

import traceback
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from agent_service.cli import main
from agent_service.context.config import load_context_config
from agent_service.context.redis import RedisContextConfig
from agent_service.core.errors import AgentServiceError, ConfigurationError
from agent_service.core.settings import Settings, get_settings, reset_settings
from agent_service.core.urls.database import parse_database_url
from agent_service.core.urls.mask import mask_url
from agent_service.core.urls.redis import parse_redis_url
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.redis.manager import RedisManager
from tests.support.depth import examples

SPECIAL = "@:/#?%&=+,;[]. !$'\"\\~^{}|"
"""What people leave unencoded in passwords."""
DATABASE = ("postgresql+asyncpg", "postgresql", "postgres", "sqlite+aiosqlite")
REDIS = ("redis", "rediss", "redis+sentinel", "redis+cluster", "unix")
WITH_HOST = (
    "{scheme}://user:{secret}@host:5432/name",
    "{scheme}://:{secret}@host",
    "{scheme}://{secret}@host:1/0",
    "{scheme}://user:{secret}@host:port/name",
    "{scheme}://user:{secret}@host:99999/name",
    "{scheme}://user:{secret}@host/name?sslmode=wrong&db=x",
    "{scheme}://user:{secret}@host/name?nonsense=1",
    "{scheme}://user:{secret}@[::zz]/name",
    "{scheme}://user:{secret}@a,,b/name/0",
    "{scheme}://user:{secret}@host/name#fragment",
    "{scheme}://user:{secret}@/run/redis.sock",
    "{scheme}://user:{secret}@host,/name",
    "{scheme}:/user:{secret}@host/name",
    "user:{secret}@host/name",
    " {scheme}://user:{secret}@host/name",
    "{scheme}://user:word@host/name?password={secret}",
    "{scheme}://host/name?password={secret}",
    "{scheme}://host:5432/name?sslpassword={secret}&sslmode=wrong",
    "{scheme}://host/0?ssl_password={secret}",
    "{scheme}://host/name/0?sentinel_password={secret}",
    "{scheme}://host/name?pass%77ord={secret}",
    "{scheme}://host?password={secret}",
)
WITHOUT_HOST = ("{scheme}://user:{secret}", "{scheme}://:{secret}", "user:{secret}", "{secret}")

parts = st.lists(st.text("abcdefghij0123456789", min_size=4, max_size=6).map("zq".__add__), min_size=1, max_size=4)


@st.composite
def secret_urls(draw: st.DrawFn, schemes: tuple[str, ...]) -> tuple[str, list[str]]:
    pieces = draw(parts)
    form = draw(st.sampled_from(WITH_HOST + WITHOUT_HOST))
    # Without an @ behind it nothing tells the rest of a password behind one from a host.
    special = SPECIAL if form in WITH_HOST else SPECIAL.replace("@", "")
    secret = pieces[0] + "".join(draw(st.text(special, min_size=1, max_size=2)) + each for each in pieces[1:])
    return form.format(scheme=draw(st.sampled_from(schemes)), secret=secret), pieces


def told(exc: BaseException) -> str:
    """Return every text of an error and of all that it is chained to, suppressed or not."""
    texts = traceback.format_exception(exc)
    following: BaseException | None = exc
    while following is not None:
        texts.append(f"{following} {following!r}")
        following = following.__cause__ or following.__context__
    return "".join(texts)


def require_hidden(pieces: list[str], *texts: str) -> None:
    for text in texts:
        shown = [piece for piece in pieces if piece in text]
        assert not shown, text


@settings(deadline=None, max_examples=examples(150, 600))
@given(secret_urls(DATABASE))
def test_no_text_about_a_database_url_shows_a_part_of_its_password(given_url: tuple[str, list[str]]) -> None:
    url, pieces = given_url

    require_hidden(pieces, mask_url(url))
    try:
        target = parse_database_url(url)
    except ConfigurationError as exc:
        require_hidden(pieces, told(exc))
    else:
        manager = DatabaseManager(url)
        require_hidden(pieces, f"{target} {target!r} {manager} {manager!r} {manager.engine!r}")
    try:
        Settings(database_url=url, database_replica_url=url)
    except ValidationError as exc:
        require_hidden(pieces, told(exc))


@settings(deadline=None, max_examples=examples(150, 600))
@given(secret_urls(REDIS))
def test_no_text_about_a_redis_url_shows_a_part_of_its_password(given_url: tuple[str, list[str]]) -> None:
    url, pieces = given_url

    require_hidden(pieces, mask_url(url), repr(RedisContextConfig(url)))
    try:
        target = parse_redis_url(url)
    except ConfigurationError as exc:
        require_hidden(pieces, told(exc))
    else:
        require_hidden(pieces, f"{target} {target!r}")
    try:
        Settings(redis_url=url)
    except ValidationError as exc:
        require_hidden(pieces, told(exc))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+asyncpg://user:p@zqzq/wo?application_name=zqzr@host/db",
        "postgresql+asyncpg://user:p@zqzq?application_name=zqzr@host/db",
        "postgresql+asyncpg://user:p@zqzq?zqzr=1@host/db",
        "postgresql+asyncpg://host:5432/db?user=me&password=p@zqzq",
        "postgresql+asyncpg://host?password=p@zqzq",
        "postgresql+asyncpg://user:zqzq?zqzr&x",
        "postgresql+asyncpg://host/db?password=zqzq&zqzr=1",
        "user:zqzq://zqzr@host/db",
    ],
)
def test_a_database_url_whose_password_is_not_encoded_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_database_url(url)

    require_hidden(["zqz"], told(caught.value))


@pytest.mark.parametrize(
    "url",
    [
        "redis://:zqzq/zqzr",
        "redis://user:zqzq,zqzr",
        "redis://:zqzq?zqzr=1",
        "redis://h?pass%77ord=zqzq&db=x",
        "redis://h/0?password=zqzq&zqzr=1",
        "redis://host/0?password=p@zqzq",
    ],
)
def test_a_redis_url_whose_password_is_not_encoded_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_redis_url(url)

    require_hidden(["zqz"], told(caught.value), mask_url(url))


def test_a_database_of_any_name_is_reached_by_its_percent_encoded_form() -> None:
    target = parse_database_url("postgresql+asyncpg://h/my%20data%2Fbase%40x")

    assert target.database == "my data/base@x"
    assert str(target) == "postgresql+asyncpg://h/my%20data/base%40x"


async def test_health_checks_show_no_part_of_a_password() -> None:
    for query in ("", "?sslmode=require&sslpassword=zqzr", "?sslrootcert=/none.pem&sslmode=verify-ca&sslpassword=zqzr"):
        database = DatabaseManager(f"postgresql+asyncpg://user:zqzq:/zqzq@127.0.0.1:1/db{query}")
        require_hidden(["zqz"], str(await database.health_check()))
        await database.close()
    redis = RedisManager("redis://user:zqzq@zqzr/zq@127.0.0.1:1/0")
    require_hidden(["zqz"], str(await redis.health_check()))
    await redis.aclose()


@pytest.mark.parametrize("url", ["redis://u:zq@zqzq@127.0.0.1:x", "redis://u:zqzq/zqzr"])
def test_settings_and_commands_show_no_part_of_a_password(url: str, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    monkeypatch.setenv("DATABASE_URL", url.replace("redis", "postgresql+asyncpg"))
    reset_settings()

    with pytest.raises(ConfigurationError) as caught:
        get_settings()
    assert main(["settings"]) == 2
    out, err = capsys.readouterr()
    require_hidden(["zqz"], told(caught.value), out, err)


def test_a_context_file_shows_no_part_of_a_password(tmp_path: Any) -> None:
    for name, text in (
        ("a.json", '{"context": {"redis": {"url": "redis://u:zqzq@h", "x": "zqzr"}, "backend": "zqzr"}}'),
        ("b.json", '{"context": {"redis": "redis://u:zqzq@h" zqzr'),
        ("c.toml", 'context.redis.url = "redis://u:zqzq@h'),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(AgentServiceError) as caught:
            load_context_config(tmp_path / name)
        require_hidden(["zqz"], told(caught.value))
