"""Sources that hold what cannot be read or stored: it is named by its place, never by what it says."""

import json
from pathlib import Path

import pytest
from sqlalchemy import text

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.integrations.importing import (
    ImportStoppedError,
    Options,
    import_adk,
    import_langgraph,
    import_openai,
)
from agent_service.integrations.openai_agents import DatabaseSession
from tests.integrations.importing.adk_filled import fill_adk
from tests.integrations.importing.filled import execute, fill_openai, openai_items, opened
from tests.integrations.importing.graphs import fill_threads, saver_of, tuples_of

SECRET = "hunter2"
GOOD = {"role": "user", "content": "good"}

BAD = {
    "no JSON": "{" + SECRET,
    "cut off": json.dumps({"role": "user", "content": SECRET})[:-3],
    "no object": json.dumps([SECRET]),
    "text": json.dumps(SECRET),
    "NaN": f'{{"role": "user", "content": "{SECRET}", "score": NaN}}',
    "infinite": f'{{"role": "user", "content": "{SECRET}", "score": 1e999}}',
    "a lone surrogate": f'{{"role": "user", "content": "{SECRET} \\ud800"}}',
    "nested too deep": '{"role": "user", "a": ' + "[" * 1000 + f'"{SECRET}"' + "]" * 1000 + "}",
    "nested far too deep": "[" * 100_000,
    "a role that is no text": json.dumps({"role": [SECRET], "content": "x"}),
    "content that is no text": json.dumps({"role": "user", "content": {"a": SECRET}}),
    "tokens that are no count": json.dumps({"role": "user", "content": SECRET, "token_count": SECRET}),
    "a role with NUL": json.dumps({"role": f"{SECRET}\x00", "content": "x"}),
}


async def test_items_that_cannot_be_kept_are_named_and_left_out(target: DatabaseManager, source_file: str):
    await fill_openai(source_file, {what: [GOOD, {"role": "user", "content": what}, GOOD] for what in BAD})
    for what, data in BAD.items():
        change = "UPDATE agent_messages SET message_data = :data WHERE session_id = :what AND id % 3 = 2"
        await execute(source_file, change, data=data, what=what)

    report = await import_openai(source_file, user_id="ada", options=Options(database=target, on_problem="skip"))
    again = await import_openai(source_file, user_id="ada", options=Options(database=target, on_problem="skip"))

    places = [f"session {what!r}, agent_messages id {3 * number + 2}" for number, what in enumerate(BAD)]
    assert [each.place for each in report.problems.first] == [each for _, each in sorted(zip(BAD, places, strict=True))]
    assert SECRET not in str(report)
    assert (report.added, report.items_added, report.items_skipped) == (len(BAD), 2 * len(BAD), len(BAD))
    assert (again.unchanged, again.items_skipped, again.changed) == (len(BAD), len(BAD), False)
    for what in BAD:
        assert await DatabaseSession(what, user_id="ada", database=target).get_items() == [GOOD, GOOD]


async def test_the_first_of_them_stops_a_run_and_nothing_of_its_conversation_is_written(
    target: DatabaseManager, source_file: str
):
    await fill_openai(source_file, {"a": [GOOD, GOOD, GOOD], "b": [GOOD]})

    for data in BAD.values():
        await execute(source_file, "UPDATE agent_messages SET message_data = :data WHERE id = 2", data=data)
        with pytest.raises(ImportStoppedError) as stopped:
            await import_openai(source_file, user_id="ada", options=Options(database=target))
        assert stopped.value.problem.place == "session 'a', agent_messages id 2"
        assert SECRET not in str(stopped.value)

    async with target.session() as db:
        assert (await SessionRepository(db).get_session_stats("ada")).total_sessions == 0


async def test_skipping_gives_what_the_sdk_gives_which_skips_too(target: DatabaseManager, source_url: str):
    await fill_openai(source_url, {"a": [GOOD, {"role": "user", "content": "bad"}, GOOD]})
    await execute(source_url, "UPDATE agent_messages SET message_data = '{' WHERE message_data LIKE '%bad%'")

    await import_openai(source_url, user_id="ada", options=Options(database=target, on_problem="skip"))

    theirs = (await openai_items(source_url, ["a"]))["a"]
    assert await DatabaseSession("a", user_id="ada", database=target).get_items() == theirs == [GOOD, GOOD]


async def test_bytes_that_are_no_text_are_a_fault_of_their_row_alone(target: DatabaseManager, source_file: str):
    await fill_openai(source_file, {"a": [GOOD, GOOD], "b": [GOOD]})
    await execute(
        source_file,
        "UPDATE agent_messages SET message_data = CAST(X'7B2261223A2022FF227D' AS TEXT) WHERE id = 1",
        "UPDATE agent_messages SET message_data = X'7B7D' WHERE id = 2",
    )

    report = await import_openai(source_file, user_id="ada", options=Options(database=target, on_problem="skip"))

    assert (report.items_added, report.items_skipped, report.added) == (1, 2, 2)
    assert "lone surrogate" in report.problems.first[0].reason
    assert "holds bytes, not text" in report.problems.first[1].reason


async def test_ids_that_cannot_be_external_ids_refuse_their_conversation(target: DatabaseManager, source_file: str):
    await fill_openai(source_file, {"a": [GOOD], "": [GOOD], "x" * 256: [GOOD]})

    report = await import_openai(source_file, user_id="ada", options=Options(database=target, on_problem="skip"))

    assert (report.added, report.skipped) == (1, 2)
    assert all("external_id must have 1 to 255 characters" in each.reason for each in report.problems.first)


async def test_ids_that_are_no_text_are_a_fault_of_their_conversation_alone(target: DatabaseManager, source_file: str):
    await fill_openai(source_file, {f"{number:03}": [GOOD] for number in range(60)} | {"\x7fb": [GOOD]})
    # After 49 others, so that it is the last one of a page.
    await execute(
        source_file,
        "UPDATE agent_messages SET session_id = CAST(X'303438FF' AS TEXT) WHERE session_id = '049'",
        "UPDATE agent_sessions SET session_id = CAST(X'303438FF' AS TEXT) WHERE session_id = '049'",
        "UPDATE agent_messages SET session_id = X'FF' WHERE session_id = '059'",
        "DELETE FROM agent_sessions WHERE session_id = '059'",
    )

    with pytest.raises(ImportStoppedError, match=r"conversation '048\\udcff': its id is no text in UTF-8"):
        await import_openai(source_file, user_id="ada", options=Options(database=target))
    report = await import_openai(source_file, user_id="ada", options=Options(database=target, on_problem="skip"))

    assert (report.earlier, report.added, report.skipped) == (49, 10, 2)
    assert [each.place for each in report.problems.first] == ["conversation '048\\udcff'", "conversation b'\\xff'"]
    assert await DatabaseSession("\x7fb", user_id="ada", database=target).get_items() == [GOOD]


async def test_users_that_a_function_does_not_know_refuse_their_conversation(target: DatabaseManager, source_file: str):
    await fill_openai(source_file, {"ada/1": [GOOD], "2": [GOOD]})

    report = await import_openai(
        source_file,
        user_id=lambda session_id: session_id.rpartition("/")[0],
        options=Options(database=target, on_problem="skip"),
    )

    assert (report.added, report.skipped) == (1, 1)
    assert report.problems.first[0].place == "session '2'"


async def test_only_the_first_hundred_problems_are_named_and_all_are_counted(target: DatabaseManager, source_file: str):
    await fill_openai(source_file, {"a": [GOOD] * 150})
    await execute(source_file, "UPDATE agent_messages SET message_data = '{'")

    report = await import_openai(source_file, user_id="ada", options=Options(database=target, on_problem="skip"))

    assert (len(report.problems.first), report.problems.count, report.items_skipped) == (100, 150, 150)


async def test_events_that_are_none_are_named(target: DatabaseManager, source_url: str):
    await fill_adk(source_url, {("app", "ada", "s1"): 1})
    await execute(
        source_url,
        """UPDATE events SET event_data = '{"author"\\:["hunter2"]}' WHERE id = (SELECT max(id) FROM events)""",
    )

    with pytest.raises(ImportStoppedError, match=r"session 'app'/'ada'/'s1', event '.*': .*author") as stopped:
        await import_adk(source_url, options=Options(database=target))
    report = await import_adk(source_url, options=Options(database=target, on_problem="skip"))

    assert SECRET not in str(stopped.value)
    assert (report.items_added, report.items_skipped) == (3, 1)


async def test_state_that_is_no_object_refuses_its_session(target: DatabaseManager, source_file: str):
    await fill_adk(source_file, {("app", "ada", "s1"): 1, ("app", "ada", "s2"): 1})
    await execute(source_file, "UPDATE sessions SET state = '[1]' WHERE id = 's1'")
    await execute(source_file, "UPDATE app_states SET state = '{\"a\"\\:'")

    report = await import_adk(source_file, options=Options(database=target, on_problem="skip"))

    assert (report.skipped, report.items_added) == (2, 4)
    assert [each.place for each in report.problems.first] == ["app_states of 'app'", "session 'app'/'ada'/'s1'"]


async def test_a_dry_run_finds_state_that_cannot_be_kept(target: DatabaseManager, source_file: str):
    await fill_adk(source_file, {("app", "ada", "s1"): 1, ("app", "ada", "s2"): 1})
    await execute(source_file, "UPDATE sessions SET state = '{\"a\"\\:NaN}' WHERE id = 's1'")

    dry, wet = [
        await import_adk(source_file, options=Options(database=target, on_problem="skip", dry_run=dry_run))
        for dry_run in (True, False)
    ]

    assert (dry.added, dry.skipped, dry.items_added) == (wet.added, wet.skipped, wet.items_added)
    assert dry.problems == wet.problems
    assert [each.place for each in dry.problems.first] == ["session 'app'/'ada'/'s1'"]


async def test_a_hostile_pickle_is_refused_and_not_run(target: DatabaseManager, source_file: str, tmp_path: Path):
    from tests.integrations.importing.adk_filled import fill_adk_v0  # noqa: PLC0415

    await fill_adk_v0(source_file, ("app", "ada", "old"), 0)
    touched = tmp_path / "touched"
    hostile = f"cposix\nsystem\n(S'touch {touched}'\ntR.".encode()
    async with opened(source_file) as engine, engine.begin() as connection:
        await connection.execute(text("UPDATE events SET actions = :data"), {"data": hostile})

    report = await import_adk(source_file, options=Options(database=target, on_problem="skip"))

    assert report.items_skipped == 1
    assert not touched.exists()


async def test_checkpoints_that_are_damaged_are_named(target: DatabaseManager, source_file: str):
    await fill_threads(source_file, ["a"])
    async with saver_of(source_file) as saver:
        before = (await tuples_of(saver, ["a"]))["a"]
    last = before[-1].config["configurable"]["checkpoint_id"]
    for change in ("checkpoint = X'C1'", "checkpoint = X'01'", "type = 'pickle'", "metadata = '{'", "metadata = X'FF'"):
        await execute(source_file, f"UPDATE checkpoints SET {change} WHERE checkpoint_id = '{last}'")

        with pytest.raises(ImportStoppedError, match=f"thread 'a', checkpoint '{last}' of namespace"):
            await import_langgraph(source_file, options=Options(database=target))

    report = await import_langgraph(source_file, options=Options(database=target, on_problem="skip"))
    assert (report.added, report.items_skipped) == (1, 1)
