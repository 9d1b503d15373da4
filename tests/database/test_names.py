"""How the names of one database get into the text of statements."""

import pytest

from agent_service.core.errors import ConfigurationError
from agent_service.core.settings import get_settings, reset_settings
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.naming.names import RELATIONS, TABLES, TableNames

DEFAULT, ODD = TableNames("agent_service", ""), TableNames("My-Schema", "x_")
PREFIXED, PLAIN = TableNames(None, "x_"), TableNames(None, "agent_service_")


@pytest.mark.parametrize(
    ("written", "default", "odd"),
    [
        ("SELECT agent_service_sessions.id FROM agent_service_sessions",
         'SELECT "agent_service"."sessions".id FROM "agent_service"."sessions"',
         'SELECT "My-Schema"."x_sessions".id FROM "My-Schema"."x_sessions"'),
        ("SELECT 1 FROM agent_service_sessions AS s FOR UPDATE OF agent_service_sessions SKIP LOCKED",
         'SELECT 1 FROM "agent_service"."sessions" AS s FOR UPDATE OF "sessions" SKIP LOCKED',
         'SELECT 1 FROM "My-Schema"."x_sessions" AS s FOR UPDATE OF "x_sessions" SKIP LOCKED'),
        ("SELECT 1 FOR SHARE OF other, agent_service_session_messages",
         'SELECT 1 FOR SHARE OF other, "session_messages"',
         'SELECT 1 FOR SHARE OF other, "x_session_messages"'),
        ("CREATE INDEX agent_service_ix_sessions_user ON agent_service_sessions (user_id)",
         'CREATE INDEX "ix_sessions_user" ON "agent_service"."sessions" (user_id)',
         'CREATE INDEX "x_ix_sessions_user" ON "My-Schema"."x_sessions" (user_id)'),
        ("DROP INDEX IF EXISTS agent_service_ix_sessions_user",
         'DROP INDEX IF EXISTS "agent_service"."ix_sessions_user"',
         'DROP INDEX IF EXISTS "My-Schema"."x_ix_sessions_user"'),
        ("CREATE TRIGGER agent_service_session_changed AFTER UPDATE OF last_seq, deleted_at ON agent_service_sessions",
         'CREATE TRIGGER "session_changed" AFTER UPDATE OF last_seq, deleted_at ON "agent_service"."sessions"',
         'CREATE TRIGGER "x_session_changed" AFTER UPDATE OF last_seq, deleted_at ON "My-Schema"."x_sessions"'),
        ("EXECUTE FUNCTION agent_service_announce()",
         'EXECUTE FUNCTION "agent_service"."agent_service_announce"()',
         'EXECUTE FUNCTION "My-Schema"."x_announce"()'),
        ('SELECT "agent_service_sessions"."id"', 'SELECT "agent_service"."sessions"."id"',
         'SELECT "My-Schema"."x_sessions"."id"'),
    ],
)  # fmt: skip
def test_postgres_gets_names_with_their_schema_wherever_it_takes_one(written: str, default: str, odd: str) -> None:
    assert DEFAULT.render(written) == default
    assert ODD.render(written) == odd


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 'agent_service_sessions', 'it''s agent_service_sessions'",
        r"SELECT E'it\'s agent_service_sessions'",
        "SELECT 1 -- don't touch agent_service_sessions\n",
        "SELECT 1 /* agent_service_sessions isn't */",
        'SELECT 1 AS "it\'s agent_service_sessions"',
        "SELECT id FROM agent_service_sessions_1",
        "SELECT my_agent_service_sessions FROM agent_service_users",
        "SELECT agent_service_sessions_id FROM agent_service.sessions",
        "SELECT version_num FROM agent_service.agent_service_version",
        "SELECT set_config('agent_service.tenant', $1, true)",
    ],
)
def test_what_only_looks_like_a_name_of_ours_stays(statement: str) -> None:
    for names in (DEFAULT, ODD, PREFIXED):
        assert names.render(statement) == statement


def test_a_name_after_a_text_or_comment_with_an_apostrophe_is_still_found() -> None:
    written = "SELECT 'it''s' -- don't\nFROM agent_service_sessions /* isn't */ JOIN agent_service_cache_outbox"

    assert ODD.render(written) == (
        'SELECT \'it\'\'s\' -- don\'t\nFROM "My-Schema"."x_sessions" /* isn\'t */ JOIN "My-Schema"."x_cache_outbox"'
    )


def test_sqlite_gets_the_prefix_and_nothing_at_all_is_done_for_the_default() -> None:
    match = "SELECT rowid FROM agent_service_session_search WHERE agent_service_session_search MATCH ?"

    assert PREFIXED.render(match) == 'SELECT rowid FROM "x_session_search" WHERE "x_session_search" MATCH ?'
    assert PLAIN.render(match) is match


def test_a_statement_is_read_once() -> None:
    written = "SELECT id FROM agent_service_sessions"

    assert DEFAULT.render(written) is DEFAULT.render("".join(written))


def test_no_two_installations_share_a_name() -> None:
    others = [
        DEFAULT,
        ODD,
        TableNames("My-Schema", ""),
        TableNames("agent_service", "x_"),
        TableNames("x" * 63, "y" * 20),
    ]

    for kind in (*RELATIONS, "version", "announce"):
        assert len({each.full(kind) for each in others}) == len(others)
    assert len({each.channel for each in others}) == len(others)
    assert max(len(each.channel.encode()) for each in others) <= 63


def test_the_longest_names_fit() -> None:
    longest = TableNames("s" * 63, "p" * 20)

    names = [longest.local(each) for each in (*TABLES, "ix_session_messages_content_trigram", "version", "announce")]

    assert max(map(len, names)) <= 63


@pytest.mark.parametrize(
    ("argument", "value", "reason"),
    [
        ("schema", "", "must begin"),
        ("schema", 'we"ird', "must begin"),
        ("schema", "it's", "must begin"),
        ("schema", "50%", "must begin"),
        ("schema", "a.b", "must begin"),
        ("schema", "1st", "must begin"),
        ("schema", "a\nb", "must begin"),
        ("schema", "pg_mine", "PostgreSQL's own"),
        ("schema", "information_schema", "PostgreSQL's own"),
        ("schema", "ends ", "space"),
        ("schema", "s" * 64, "63 bytes"),
        ("schema", "ü" * 32, "63 bytes"),
        ("schema", 7, "must begin"),
        ("table_prefix", "x%", "must begin"),
        ("table_prefix", "x'", "must begin"),
        ("table_prefix", "sqlite_", "SQLite"),
        ("table_prefix", "p" * 21, "20 bytes"),
    ],
)
def test_what_cannot_be_a_name_is_refused_by_the_name_of_its_argument(argument: str, value: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{argument} .*{reason}"):
        DatabaseManager("sqlite+aiosqlite:///:memory:", **{argument: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("setting", "value"), [("DB_SCHEMA", 'a"b'), ("DB_SCHEMA", "pg_x"), ("DB_TABLE_PREFIX", "x" * 21)]
)
def test_a_setting_that_cannot_be_a_name_is_refused_by_its_name(
    setting: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(setting, value)
    reset_settings()

    with pytest.raises(ConfigurationError, match=f"^{setting}: "):
        get_settings()


def test_an_empty_setting_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_SCHEMA", "")
    monkeypatch.setenv("DB_TABLE_PREFIX", "")
    reset_settings()

    assert (get_settings().db_schema, get_settings().db_table_prefix) == (None, None)
