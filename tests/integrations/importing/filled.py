"""Filling the stores of frameworks, and what their own classes then say."""

import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from agents.extensions.memory import SQLAlchemySession
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

__all__ = ["execute", "fill_openai", "openai_items", "opened", "rows_of_many", "turn"]


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[AsyncEngine]:
    """An engine as an application has it."""
    engine = create_async_engine(url)
    try:
        yield engine
    finally:
        await engine.dispose()


async def execute(url: str, *statements: str, **values: Any) -> None:
    """Run statements on a source."""
    async with opened(url) as engine, engine.begin() as connection:
        for each in statements:
            await connection.execute(text(each), values)


def turn(number: int) -> list[dict[str, Any]]:
    """Return the items of one turn, of every kind that has no role."""
    return [
        {"role": "user", "content": f"Question {number}: wann fährt der Zug? \N{STEAM LOCOMOTIVE} \x00 end"},
        {"type": "reasoning", "id": f"rs_{number}", "summary": [{"type": "summary_text", "text": "a timetable"}]},
        {"type": "function_call", "call_id": f"c{number}", "name": "table", "arguments": '{"to": "Bergen"}'},
        {"type": "function_call_output", "call_id": f"c{number}", "output": "16:05"},
        {
            "type": "message",
            "id": f"msg_{number}",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "At 16:05.", "annotations": [], "score": 1.0, "n": 2**70}],
        },
    ]


async def fill_openai(url: str, conversations: Mapping[str, Sequence[Any]], **tables: Any) -> None:
    """Store conversations as the SDK does."""
    async with opened(url) as engine:
        for session_id, items in conversations.items():
            session = SQLAlchemySession(session_id, engine=engine, create_tables=True, **tables)
            await session.add_items(list(items))


async def openai_items(url: str, session_ids: Iterable[str], **tables: Any) -> dict[str, list[Any]]:
    """Return what the SDK reads."""
    async with opened(url) as engine:
        return {each: await SQLAlchemySession(each, engine=engine, **tables).get_items() for each in session_ids}


async def rows_of_many(url: str, count: int, items: int, *, first: int = 0) -> None:
    """Store many conversations of the SDK at once, by few statements."""
    async with opened(url) as engine:
        await SQLAlchemySession("made", engine=engine, create_tables=True).add_items([{"role": "user", "content": "x"}])
        async with engine.begin() as connection:
            for start in range(first, first + count, 1000):
                ids = range(start, min(start + 1000, first + count))
                await connection.execute(
                    text("INSERT INTO agent_sessions (session_id) VALUES (:id)"), [{"id": f"chat {n:06}"} for n in ids]
                )
                rows = [
                    {"id": f"chat {n:06}", "data": json.dumps({"role": "user", "content": f"{n}: {item}"})}
                    for n in ids
                    for item in range(items)
                ]
                await connection.execute(
                    text("INSERT INTO agent_messages (session_id, message_data) VALUES (:id, :data)"), rows
                )
