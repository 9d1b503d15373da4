"""Rows leave the outbox the oldest first, and no more of them at once than asked for. On both engines."""

from sqlalchemy import text, update

from agent_service.core.clock import SYSTEM_CLOCK
from agent_service.core.identifiers import uuid7
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.outbox import OutboxRow
from agent_service.infrastructure.database.outbox import FORMAT, add_rows, remove_rows, set_rows_aside, take_rows


async def test_the_oldest_rows_come_first_and_as_many_as_asked_for(database_url: str) -> None:
    database = DatabaseManager(database_url)
    ids = [uuid7() for _ in range(6)]
    async with database.session() as db:
        for number in (4, 1, 5, 0, 3, 2):  # as several processes may commit them
            row = OutboxRow(id=ids[number], format=FORMAT, body=str(number), created_at=SYSTEM_CLOCK.now())
            db.add(row)
            await db.flush()

    async with database.session() as db:
        first = await take_rows(db, 2)
        await remove_rows(db, [id_ for id_, _ in first])
        second = await take_rows(db, 3)
        await set_rows_aside(db, [second[0][0]])
        third = await take_rows(db, 10)
    await database.close()

    assert [body for _, body in first] == ["0", "1"]
    assert [body for _, body in second] == ["2", "3", "4"]
    assert [body for _, body in third] == ["3", "4", "5"]


async def test_a_row_of_another_format_or_set_aside_stays_for_others(database_url: str) -> None:
    database = DatabaseManager(database_url)
    async with database.session() as db:
        add_rows(db, ["one", "two"], after_commit=lambda: None)
    async with database.session() as db:
        await db.execute(update(OutboxRow).where(OutboxRow.body == "one").values(format=FORMAT + 1))
        assert [body for _, body in await take_rows(db, 10)] == ["two"]
        assert await remove_rows(db, []) == 0
    await database.close()


async def test_removing_says_how_many_rows_were_still_there(database_url: str) -> None:
    database = DatabaseManager(database_url)
    async with database.session() as db:
        add_rows(db, ["one", "two"], after_commit=lambda: None)
    async with database.session() as db:
        (one, _), (two, _) = await take_rows(db, 10)
        assert await remove_rows(db, [one]) == 1
        assert await remove_rows(db, [one, two]) == 1
    await database.close()


async def test_on_postgresql_a_silent_transaction_keeps_rows_for_two_minutes_at_most(postgres_url: str) -> None:
    database = DatabaseManager(postgres_url)
    limit = text("SHOW idle_in_transaction_session_timeout")
    async with database.session() as db:
        add_rows(db, ["one"], after_commit=lambda: None)
    async with database.session() as db:
        usual = (await db.execute(limit)).scalar_one()
        await take_rows(db, 10)
        while_it_holds_rows = (await db.execute(limit)).scalar_one()
    async with database.session() as db:
        afterwards = (await db.execute(limit)).scalar_one()
    await database.close()

    assert while_it_holds_rows == "2min"
    assert afterwards == usual


async def test_a_row_that_another_transaction_has_taken_is_not_waited_for(postgres_url: str) -> None:
    database = DatabaseManager(postgres_url)
    async with database.session() as db:
        add_rows(db, ["one", "two"], after_commit=lambda: None)
    async with database.session() as taking, database.session() as removing:
        ((one, _),) = await take_rows(taking, 1)
        ((two, _),) = await take_rows(removing, 10)
        await removing.execute(text("SET LOCAL lock_timeout = '10s'"))
        assert await remove_rows(removing, [one, two]) == 1
    await database.close()
