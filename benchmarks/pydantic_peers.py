"""Conversations of Pydantic AI beside its own store in memory: ``python -m benchmarks.pydantic_peers``.

Each figure is a median of rounds that take turns between conversations of 10, 1,000 and 10,000 messages, and a ratio to
the shortest: saving a turn, loading the last 50 messages, and loading all. What is flat stays near 1.00 x.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from tempfile import TemporaryDirectory

from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import ConversationStore, InMemoryConversationStore
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, UserPromptPart

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.integrations.pydantic_ai import DatabaseConversationStore
from benchmarks.timing import print_ratios, seconds_per_call
from tests.servers.postgres import running_postgres

LENGTHS = (10, 1_000, 10_000)
TEXT = "The train to Bergen leaves at 16:05 from platform 4, and takes six hours and thirty-two minutes. " * 5


def turn() -> list[ModelMessage]:
    """A question of a user and the answer of a model, of about 500 characters each."""
    return [ModelRequest(parts=[UserPromptPart(TEXT)]), ModelResponse(parts=[TextPart(TEXT)])]


async def begin(store: ConversationStore, length: int) -> str:
    """Store a conversation of so many messages."""
    conversation = Conversation(messages=[each for _ in range(length // 2) for each in turn()])
    await store.save(conversation)
    return conversation.conversation_id


class Talk:
    """One conversation that goes on."""

    def __init__(self, store: ConversationStore, id_: str) -> None:
        self._store = store
        self._id = id_
        self._window: Conversation

    async def open(self) -> None:
        """Load the end of it."""
        await self.load_last()

    async def save(self) -> None:
        """Save a turn."""
        self._window.messages += turn()
        await self._store.save(self._window)

    async def load_last(self) -> None:
        """Load the last 50 messages."""
        loaded = await self._store.load(self._id, limit=50)
        assert loaded is not None
        self._window = loaded

    async def load(self) -> None:
        """Load all messages."""
        assert await self._store.load(self._id) is not None

    async def delete(self) -> None:
        """Delete it."""
        await self._store.delete(self._id)


async def measure(name: str, store: ConversationStore, rounds: int) -> None:
    """Print what each call takes for each length."""
    talks = {length: Talk(store, await begin(store, length)) for length in LENGTHS}
    for each in talks.values():
        await each.open()

    async def table(title: str, calls: dict[str, Callable[[], Awaitable[None]]], count: int, turns: int) -> None:
        print_ratios(f"{name}: {title}", await seconds_per_call(calls, calls=count, rounds=turns))

    labels = {length: f"{length:,} messages" for length in LENGTHS}
    await table("load", {labels[n]: talk.load for n, talk in talks.items()}, 1, min(rounds, 5))
    await table("save a turn", {labels[n]: talk.save for n, talk in talks.items()}, 10, rounds)
    await table("load(limit=50)", {labels[n]: talk.load_last for n, talk in talks.items()}, 10, rounds)
    deleting: dict[int, list[float]] = {length: [] for length in LENGTHS}
    for _ in range(3):
        for length in LENGTHS:
            talk = Talk(store, await begin(store, length))
            started = time.perf_counter()
            await talk.delete()
            deleting[length].append(time.perf_counter() - started)
    print_ratios(f"{name}: delete", {labels[n]: statistics.median(each) for n, each in deleting.items()})


async def measure_database(name: str, url: str, rounds: int) -> None:
    """Print what it takes on one engine."""
    database = DatabaseManager(url)
    await database.upgrade()
    await measure(name, DatabaseConversationStore(database), rounds)
    await database.close()


async def main(rounds: int) -> None:
    """Measure all three, one after the other."""
    await measure("InMemoryConversationStore", InMemoryConversationStore(), rounds)
    with TemporaryDirectory() as folder:
        await measure_database("SQLite", f"sqlite+aiosqlite:///{folder}/chats.db", rounds)
    with running_postgres(durable=True) as server:
        await measure_database("PostgreSQL", server.create_database("chats"), rounds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="rounds of each candidate")
    asyncio.run(main(parser.parse_args().rounds))
