"""State in files: named when damaged, kept in its folder, whole whenever its writer is killed."""

import asyncio
import json
import random
import signal
import time
from pathlib import Path

import pytest

from agent_service.core.errors import StateStoreError
from agent_service.state.file import FileStateStore
from agent_service.state.models import CoachContext
from agent_service.testing.context_contracts import HOSTILE_KEYS
from tests.support.forked import Forked


async def test_a_damaged_file_is_an_error_that_names_it_and_is_left_as_it_is(tmp_path: Path):
    store = FileStateStore(tmp_path)
    await store.save_context(CoachContext(user_id="ada"))
    path = tmp_path / "ada.json"
    whole = path.read_bytes()

    for content in (b"", whole[:-1], whole[:-5], b'"ada"\n', b'"ada"\n{}\n', b'"ada"\n[1]\n', b"\x00" * len(whole)):
        path.write_bytes(content)
        with pytest.raises(StateStoreError, match="'ada'") as loading:
            await store.load_context("ada")
        with pytest.raises(StateStoreError) as saving:
            await store.save_context(CoachContext(user_id="ada"))

        assert str(path) in str(loading.value)
        assert str(path) in str(saving.value)
        assert path.read_bytes() == content


async def test_a_damaged_file_can_be_deleted_and_the_user_begins_again(tmp_path: Path):
    store = FileStateStore(tmp_path)
    (tmp_path / "ada.json").write_bytes(b"damaged")
    await store.delete_context("ada")
    context = CoachContext(user_id="ada")

    await store.save_context(context, expected_version=0)

    assert context.version == 1


async def test_a_file_put_in_the_place_of_another_users_is_refused(tmp_path: Path):
    store = FileStateStore(tmp_path)
    await store.save_context(CoachContext(user_id="ada"))
    (tmp_path / "ada.json").rename(tmp_path / "bob.json")

    with pytest.raises(StateStoreError, match=r"'bob'.*'ada'"):
        await store.load_context("bob")


def test_no_user_id_leaves_the_folder(tmp_path: Path):
    store = FileStateStore(tmp_path / "deep" / "state")
    for user_id in filter(None, HOSTILE_KEYS):
        asyncio.run(store.save_context(CoachContext(user_id=user_id)))

    everything = [each for each in tmp_path.rglob("*") if each.is_file()]

    assert {each.parent for each in everything} == {tmp_path / "deep" / "state", tmp_path / "deep" / "state" / ".locks"}
    assert len({each.name.lower() for each in everything if each.suffix == ".json"}) == len(HOSTILE_KEYS) - 1


async def test_a_file_can_be_read_by_people(tmp_path: Path):
    await FileStateStore(tmp_path).save_context(CoachContext(user_id="ada", consolidated_summary="so far"))

    document = json.loads((tmp_path / "ada.json").read_text())

    assert document["current_state"] == "introduction"
    assert document["consolidated_summary"] == "so far"
    assert (document["version"], document["schema_version"]) == (1, 1)


async def test_a_file_of_the_first_release_loads_and_is_saved_as_one_document(tmp_path: Path):
    store = FileStateStore(tmp_path)
    (tmp_path / "ada.json").write_text(
        '"ada"\n{"user_id":"ada","current_state":"introduction","conversation_history":[],"consolidated_summary":"so '
        'far","user_profile":null,"metadata":{},"version":3,"schema_version":1}\n'
    )

    context = await store.load_context("ada")
    assert context is not None
    assert (context.consolidated_summary, context.version) == ("so far", 3)
    await store.save_context(context, expected_version=3)
    assert json.loads((tmp_path / "ada.json").read_text())["version"] == 4


@pytest.mark.parametrize("kills", [3, pytest.param(100, marks=pytest.mark.faults)])
def test_a_kill_at_any_moment_leaves_the_old_or_the_new(tmp_path: Path, kills: int):
    users = [f"user-{n}" for n in range(3)]
    known = dict.fromkeys(users, 0)
    chance = random.Random(1)

    for _ in range(kills):
        with Forked("tests.state.writer", "save", str(tmp_path), *users) as writer:
            first = writer.stdout.readline()
            time.sleep(chance.uniform(0, 0.05))
            writer.kill()
            said = (first + writer.stdout.read()).decode().splitlines()
        assert writer.returncode == -signal.SIGKILL
        # Each line was written after its save had returned.
        known |= {user_id: int(version) for user_id, version in map(str.split, said)}
        for user_id in users:
            found = asyncio.run(FileStateStore(tmp_path).load_context(user_id))
            version = 0 if found is None else found.version

            assert version in {known[user_id], known[user_id] + 1}
            assert found is None or found.metadata["versions"] == [version] * 3_000
            known[user_id] = version
