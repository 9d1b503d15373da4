"""Database URLs: every documented form, what providers hand out, refusals that help, and no secret anywhere."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_service.core.errors import ConfigurationError
from agent_service.core.urls.database import parse_database_url


@pytest.mark.parametrize(
    ("url", "shown", "hosts"),
    [
        ("postgresql+asyncpg://u:p@h:5432/db", "postgresql+asyncpg://h:5432/db", (("h", 5432),)),
        ("postgresql+asyncpg://h/db", "postgresql+asyncpg://h/db", (("h", None),)),
        ("postgresql+asyncpg://u@[::1]:5432/db", "postgresql+asyncpg://[::1]:5432/db", (("::1", 5432),)),
        ("postgresql+asyncpg://u@/db", "postgresql+asyncpg:///db", ()),
        (
            "postgresql+asyncpg:///db?host=/run/pg&port=5433",
            "postgresql+asyncpg:///run/pg:5433/db",
            (("/run/pg", 5433),),
        ),
        ("postgresql+asyncpg://a:1,b/db", "postgresql+asyncpg://a:1,b/db", (("a", 1), ("b", None))),
        ("postgresql+asyncpg:///db?host=a:1&host=b:2", "postgresql+asyncpg://a:1,b:2/db", (("a", 1), ("b", 2))),
        ("postgresql+asyncpg:///db?host=a,b&port=1,2", "postgresql+asyncpg://a:1,b:2/db", (("a", 1), ("b", 2))),
        ("postgresql+asyncpg:///db?host=a,b&port=1", "postgresql+asyncpg://a:1,b:1/db", (("a", 1), ("b", 1))),
        ("sqlite+aiosqlite://", "sqlite+aiosqlite:///", ()),
        ("sqlite+aiosqlite:///:memory:", "sqlite+aiosqlite:///:memory:", ()),
        ("sqlite+aiosqlite:///a@b:c.db", "sqlite+aiosqlite:///a@b:c.db", ()),
        ("sqlite+aiosqlite:////var/lib/x%20y.db", "sqlite+aiosqlite:////var/lib/x%20y.db", ()),
    ],
)
def test_a_url_says_where_the_database_is(url: str, shown: str, hosts: Any) -> None:
    target = parse_database_url(url)

    assert (str(target), target.hosts) == (shown, hosts)


def test_user_name_and_password_are_decoded() -> None:
    target = parse_database_url("postgresql+asyncpg://us%3Aer:p%40s/s:w%25rd@h/db")

    assert (target.username, target.password) == ("us:er", "p@s/s:w%rd")


def test_the_query_may_name_what_the_authority_leaves_out() -> None:
    target = parse_database_url("postgresql+asyncpg://?host=h&port=1&user=u&password=p&dbname=d")

    assert (target.hosts, target.username, target.password, target.database) == ((("h", 1),), "u", "p", "d")


def test_parameters_of_libpq_are_kept_with_their_types_and_those_without_effect_are_left_out() -> None:
    target = parse_database_url(
        "postgresql+asyncpg://h/db?ssl=require&sslmode=require&channel_binding=prefer&gssencmode=disable"
        "&client_encoding=UTF8&connect_timeout=5&application_name=my%20app&options=-csearch_path%3Dours"
        "&target_session_attrs=read-write&sslrootcert=/ca.pem"
    )

    assert target.options == {
        "sslmode": "require",
        "connect_timeout": 5.0,
        "application_name": "my app",
        "options": "-csearch_path=ours",
        "target_session_attrs": "read-write",
        "sslrootcert": "/ca.pem",
    }


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "no scheme"),
        ("data.db", "no scheme"),
        ("postgres://h/db", "postgresql[+]asyncpg://"),
        ("postgresql://h/db", "postgresql[+]asyncpg://"),
        ("sqlite:///x.db", "sqlite[+]aiosqlite://"),
        ("postgresql+asyncpg://h:port/db", "no number from 1 to 65535"),
        ("postgresql+asyncpg://h:\u0661/db", "no number from 1 to 65535"),
        ("postgresql+asyncpg://h:0/db", "port 0"),
        ("postgresql+asyncpg://h:99999/db", "port 99999"),
        ("postgresql+asyncpg://a,,b/db", "empty host"),
        ("postgresql+asyncpg://h /db", "host or port"),
        ("postgresql+asyncpg://[::zz]/db", "host or port"),
        ("postgresql+asyncpg://h/db?host=a,b&port=1,2,3", "2 hosts and 3 ports"),
        ("postgresql+asyncpg://h/db?port=70000", "port 70000"),
        ("postgresql+asyncpg://h/db?sslmode=on", "sslmode.*verify-full"),
        ("postgresql+asyncpg://h/db?ssl=true", "ssl.*verify-full"),
        ("postgresql+asyncpg://h/db?sslmode=require&ssl=disable", "more than once"),
        ("postgresql+asyncpg://h/db?sslmode=require&sslrootcert=system", "verify-full"),
        ("postgresql+asyncpg://h/db?channel_binding=require", "channel_binding.*remove it"),
        ("postgresql+asyncpg://h/db?gssencmode=require", "gssencmode.*remove it"),
        ("postgresql+asyncpg://h/db?client_encoding=latin1", "client_encoding.*UTF-8"),
        ("postgresql+asyncpg://h/db?target_session_attrs=master", "target_session_attrs.*read-write"),
        ("postgresql+asyncpg://h/db?connect_timeout=0", "connect_timeout.*seconds"),
        ("postgresql+asyncpg://h/db?connect_timeout=soon", "connect_timeout.*seconds"),
        ("postgresql+asyncpg://h/db?application_name=", "application_name"),
        ("postgresql+asyncpg://h/db?pgbouncer=true", "DB_PGBOUNCER"),
        ("postgresql+asyncpg://h/db?connection_limit=1", "DB_POOL_SIZE"),
        ("postgresql+asyncpg://h/db?statement_timeout=1", "DB_STATEMENT_TIMEOUT"),
        ("postgresql+asyncpg://h/db?keepalives=1", "keepalives.*known are .*sslmode"),
        ("sqlite+aiosqlite://data.db", "file.db"),
        ("sqlite+aiosqlite://u:p@h/data.db", "file.db"),
        ("sqlite+aiosqlite:///data.db?mode=ro", "uri=true"),
        ("sqlite+aiosqlite:///file:data.db?mode=rx&uri=true", "mode"),
        ("sqlite+aiosqlite:///data.db?sslmode=require", "known are"),
        ("sqlite+aiosqlite:///data.db?timeout=5", "30 seconds"),
    ],
)
def test_a_url_that_cannot_be_used_says_why_and_what_helps(url: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        parse_database_url(url)


def test_what_is_no_string_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="not bytes"):
        parse_database_url(b"sqlite+aiosqlite://")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+asyncpg://user:s3cret@host:port/db",
        "postgresql+asyncpg://user:s3cret",
        "postgresql+asyncpg://user:at@s3cret@host/db",
        "postgresql+asyncpg://user:at@slash/s3cret@host/db",
        "postgresql+asyncpg://user:at@question?s3cret@host/db",
        "postgresql+asyncpg://user:at@both/one?s3cret@host/db",
        "postgresql+asyncpg://user:at@amp?sslmode=disable&s3cret@host/db",
        "postgresql+asyncpg://host/db?password=s3cret&sslmode=x",
        "postgresql+asyncpg://host/db?sslpassword=s3cret&nonsense=s3cret",
        "postgresql://user:s3cret@host/db",
        "user:s3cret@host/db",
        "sqlite+aiosqlite://user:s3cret@host/db",
    ],
)
def test_no_error_shows_a_secret(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_database_url(url)

    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_target_shows_no_secret() -> None:
    target = parse_database_url("postgresql+asyncpg://us3r:s3cret@h/db?sslpassword=s3cret")

    assert "s3cret" not in f"{target}{target!r}"
    assert "us3r" not in f"{target}{target!r}"


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    for url in (text, f"postgresql+asyncpg://{text}", f"sqlite+aiosqlite://{text}", f"sqlite+aiosqlite:///x?{text}"):
        with suppress(ConfigurationError):
            assert str(parse_database_url(url)).startswith(url.partition("://")[0])
