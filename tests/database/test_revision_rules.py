"""The rule for revisions, held against what they do: short steps that say what they lock, and that hold nobody up."""

import pytest

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.schema import revisions
from tests.database.earlier import back_at_the_first, taken_over
from tests.database.more_revisions import AddRevision, add_revision
from tests.database.watched_upgrade import broken_rules, watch_upgrade
from tests.servers.prepared import Prepare

__all__ = ["add_revision"]


@pytest.fixture
def first(prepare: Prepare) -> DatabaseManager:
    """A database with a conversation, at the first revision."""
    return DatabaseManager(prepare("postgres", back_at_the_first))


@pytest.fixture
def newest(prepare: Prepare) -> DatabaseManager:
    """The same at the newest revision."""
    return DatabaseManager(prepare("postgres", taken_over))


async def test_every_revision_holds_nobody_up_and_says_what_it_locks(first: DatabaseManager) -> None:
    broken, steps = {}, 0
    for revision in revisions.known()[1:]:
        seen, planned = await watch_upgrade(first, revision)
        broken[revision] = broken_rules(seen, planned)
        steps += len({each.step for each in seen if each.locks})
    state = await first.check()
    await first.close()

    assert {revision: found for revision, found in broken.items() if found} == {}
    assert steps >= 4
    assert state.ok


def changing(statement: str, table: str = "MESSAGES", lock: str = "ACCESS_EXCLUSIVE") -> str:
    return f'run(revision, Change("change", f"{statement}", {{{table}: Lock.{lock}}}))'


BREAKING = {
    "outside of a step": ('op.execute(f"ALTER TABLE {SESSIONS} ADD note text"); run(revision)', "without a limit"),
    "Alembic's index": ('op.create_index("ix_note", SESSIONS, ["title"]); run(revision)', "not CONCURRENTLY"),
    "an index": (changing("CREATE INDEX ix_note ON {MESSAGES} (role)", lock="SHARE"), "not CONCURRENTLY"),
    "no word of a lock": (changing("ALTER TABLE {SESSIONS} ADD note text"), "says that it locks"),
    "a weaker lock": (changing("ALTER TABLE {MESSAGES} ADD note text", lock="SHARE"), "says that it locks"),
    "another type": (changing("ALTER TABLE {MESSAGES} ALTER client_id TYPE varchar(200)"), "anew"),
    "a constraint": (changing("ALTER TABLE {MESSAGES} ADD CHECK (seq > 0)"), "reads the rows"),
    "not null": (changing("ALTER TABLE {MESSAGES} ALTER content SET NOT NULL"), "reads the rows"),
    "a default": (changing("ALTER TABLE {MESSAGES} ADD at timestamptz DEFAULT clock_timestamp()"), "anew"),
}


@pytest.mark.parametrize(("upgrade", "complaint"), BREAKING.values(), ids=BREAKING)
async def test_a_revision_that_breaks_the_rule_is_noticed(
    newest: DatabaseManager, add_revision: AddRevision, upgrade: str, complaint: str
) -> None:
    revision = add_revision(upgrade)

    seen, planned = await watch_upgrade(newest, revision, plan="op." not in upgrade)
    await newest.close()

    assert complaint in str(broken_rules(seen, planned))
