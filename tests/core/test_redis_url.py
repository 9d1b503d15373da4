"""One URL, every topology."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_service.core.errors import ConfigurationError
from agent_service.core.urls.mask import mask_url
from agent_service.core.urls.redis import parse_redis_url


@pytest.mark.parametrize(
    ("url", "address", "db"),
    [
        ("redis://localhost:6379/0", ("localhost", 6379), 0),
        ("redis://", ("localhost", 6379), 0),
        ("redis://cache.example/7", ("cache.example", 6379), 7),
        ("redis://[::1]:6380", ("::1", 6380), 0),
        ("rediss://10.0.0.1:6380?db=3", ("10.0.0.1", 6380), 3),
        ("redis://localhost/1?db=2", ("localhost", 6379), 2),
    ],
)
def test_one_server_is_host_port_and_db(url: str, address: tuple[str, int], db: int):
    target = parse_redis_url(url)

    assert (target.topology, target.addresses, target.db) == ("single", (address,), db)
    assert target.tls is url.startswith("rediss")


def test_user_name_and_password_are_decoded():
    target = parse_redis_url("redis://us%3Aer:p%40ss%2Fw%25rd@localhost")

    assert (target.username, target.password) == ("us:er", "p@ss/w%rd")


def test_a_password_may_stand_alone():
    target = parse_redis_url("redis://:secret@localhost")

    assert (target.username, target.password) == (None, "secret")


def test_a_unix_socket_is_a_path_with_options():
    target = parse_redis_url("unix://user:secret@/run/redis%20one.sock?db=2")

    assert (target.topology, target.path, target.db, target.addresses) == ("single", "/run/redis one.sock", 2, ())
    assert (target.username, target.password) == ("user", "secret")


def test_sentinels_name_a_service_and_have_credentials_of_their_own():
    target = parse_redis_url("redis+sentinel://u:p@one:1,two/main/4?sentinel_username=s&sentinel_password=t&ssl=true")

    assert (target.topology, target.service, target.db) == ("sentinel", "main", 4)
    assert target.addresses == (("one", 1), ("two", 26379))
    assert (target.username, target.password) == ("u", "p")
    assert target.sentinel_options == {"username": "s", "password": "t"}
    assert target.tls


def test_a_cluster_is_a_list_of_nodes():
    target = parse_redis_url("redis+cluster://:p@one:1,[::2]:2,three")

    assert (target.topology, target.addresses) == ("cluster", (("one", 1), ("::2", 2), ("three", 6379)))
    assert (target.password, target.tls) == ("p", False)


def test_options_are_kept_with_their_types():
    target = parse_redis_url(
        "rediss://h?ssl_cert_reqs=none&ssl_check_hostname=false&client_name=a%20b&health_check_interval=30"
    )

    assert target.options == {
        "ssl_cert_reqs": "none",
        "ssl_check_hostname": False,
        "client_name": "a b",
        "health_check_interval": 30,
    }


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "must begin with one of"),
        ("localhost:6379", "must begin with one of"),
        ("http://localhost", "must begin with one of"),
        ("redis+sentinel://h:1", "names no service"),
        ("redis+cluster://h:1/3", "only db 0"),
        ("redis://one,two", "names 2 hosts"),
        ("redis+cluster://one,,two", "empty host"),
        ("redis://h:0", "port 0"),
        ("redis://h:70000", "port 70000"),
        ("redis://h:port", "host or port"),
        ("redis://h/zero", "database number"),
        ("redis://h/-1", "database number"),
        ("redis://h?db=x", "'db'"),
        ("redis://h?decode_responses=true", "unknown here"),
        ("redis://h?ssl_cert_reqs=none", "no TLS"),
        ("rediss://h?ssl_cert_reqs=maybe", "'ssl_cert_reqs'"),
        ("redis://h?ssl=true", "rediss://"),
        ("redis://h?sentinel_password=x", "redis+sentinel://"),
        ("unix://", "no socket"),
        ("unix://relative.sock", "whole path"),
    ],
)
def test_a_url_that_cannot_be_used_says_why_and_how_it_should_look(url: str, problem: str):
    with pytest.raises(ConfigurationError, match="write it like") as caught:
        parse_redis_url(url)

    assert problem in str(caught.value)


def test_what_is_no_string_is_refused():
    with pytest.raises(ConfigurationError, match="not bytes"):
        parse_redis_url(b"redis://localhost")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:s3cret@host:port",
        "redis://:s3cret/with@slash@host:x",
        "redis://:pass?s3cret@host",
        "redis://:s3cret#hash@host:x",
        "user:s3cret@host",
        "unix:///a.sock?password=s3cret&db=x",
        "redis+sentinel://h:1?sentinel_password=s3cret",
        "http://user:s3cret@host",
    ],
)
def test_no_error_shows_a_secret(url: str):
    with pytest.raises(ConfigurationError) as caught:
        parse_redis_url(url)

    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_target_shows_no_secret():
    target = parse_redis_url("redis+sentinel://us3r:s3cret@h/main?sentinel_password=s3cret")

    assert "s3cret" not in f"{target}{target!r}"
    assert "us3r" not in f"{target}{target!r}"


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_parsed_or_refused(text: str):
    for url in (text, f"redis://{text}", f"redis+sentinel://{text}", f"redis+cluster://{text}", f"unix://{text}"):
        with suppress(ConfigurationError):
            assert parse_redis_url(url).url == mask_url(url)


def test_an_embedded_server_has_a_folder_or_a_temporary_one():
    kept, temporary = parse_redis_url("embedded:///var/lib/my%20app/?db=2"), parse_redis_url("embedded://")

    assert (kept.embedded, kept.temporary, kept.db) == (True, False, 2)
    assert (kept.folder, kept.path) == ("/var/lib/my app", "/var/lib/my app/redis.sock")
    assert (temporary.embedded, temporary.temporary, temporary.folder, temporary.path) == (True, True, None, None)
    assert (str(kept), str(temporary)) == ("embedded:///var/lib/my%20app/?***", "embedded://")
    assert not parse_redis_url("unix:///run/redis.sock").embedded


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("embedded://var/lib/redis", "no folder by its whole path"),
        ("embedded:///", "no folder by its whole path"),
        ("embedded://:secret@/var/lib/redis", "has none, its folder is private"),
        ("embedded:///redis?password=secret", "has none, its folder is private"),
        ("embedded:///redis?ssl_keyfile=x", "'ssl_keyfile', which an embedded server cannot use"),
        ("embedded:///" + "x" * 100, "a folder of 101 bytes; with more than 92 the path of the unix socket"),
        ("embedded:///redis%00", "U\\+0000"),
        ("embedded:///redis?db=x", "cannot be used"),
    ],
)
def test_an_embedded_server_that_cannot_be_is_refused(url: str, problem: str):
    with pytest.raises(ConfigurationError, match=problem) as caught:
        parse_redis_url(url)

    assert "secret" not in str(caught.value)
