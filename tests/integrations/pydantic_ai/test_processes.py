"""Processes that write one conversation at once, and are killed (SIGKILL) while they do."""

import asyncio
import signal
import sys
from itertools import groupby
from pathlib import Path

import pytest

from agent_service.integrations.pydantic_ai import DatabaseConversationStore
from tests.integrations.pydantic_ai.conftest import Counted
from tests.integrations.pydantic_ai.worker import MESSAGES

ROOT = Path(__file__).parents[3]


async def killed_after(count: int, url: str, name: str) -> list[str]:
    """Return what a worker acknowledged before it was killed; it had acknowledged so many when that was decided."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.integrations.pydantic_ai.worker", url, "chat", name,
        stdout=asyncio.subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    assert process.stdout is not None
    acknowledged: list[bytes] = []
    async with asyncio.timeout(120):
        while len(acknowledged) < count and (line := await process.stdout.readline()):
            acknowledged.append(line)
        process.send_signal(signal.SIGKILL)
        acknowledged += (await process.stdout.read()).splitlines(keepends=True)
    assert await process.wait() == -signal.SIGKILL
    return [line.decode().strip() for line in acknowledged if line.endswith(b"\n")]


@pytest.mark.faults
async def test_what_was_saved_survives_and_nothing_is_there_in_part(
    database_url: str, store: DatabaseConversationStore, counted: Counted
) -> None:
    acknowledged = await asyncio.gather(*(killed_after(3 + 4 * turn, database_url, f"w{turn}") for turn in range(3)))

    conversation = await store.load("chat")
    assert conversation is not None
    said = [part.content for message in conversation.messages for part in message.parts]  # type: ignore[union-attr]
    turns = [(str(text), len(list(same))) for text, same in groupby(said)]
    assert {length for _, length in turns} == {MESSAGES}
    assert len({text for text, _ in turns}) == len(turns)
    assert {text for each in acknowledged for text in each} <= {text for text, _ in turns}
    assert conversation.usage.requests == len(turns)
    assert await counted() == (1, len(said))
    conversation.messages.append(conversation.messages[0])
    assert len(await store.save(conversation)) == 1
