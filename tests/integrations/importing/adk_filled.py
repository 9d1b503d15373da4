"""Sessions in ADK's own tables, in both layouts, and what ADK's service says of them."""

from datetime import UTC, datetime
from typing import Any

from google.adk.auth.auth_credential import AuthCredential, AuthCredentialTypes
from google.adk.auth.auth_tool import AuthConfig
from google.adk.events import Event, EventActions
from google.adk.sessions import DatabaseSessionService, Session
from google.adk.sessions.schemas import v0
from google.adk.tools.tool_confirmation import ToolConfirmation
from google.genai import types

from tests.integrations.importing.filled import opened

__all__ = ["events", "fill_adk", "fill_adk_v0", "theirs"]

START = 1_760_000_000.0


def events(number: int) -> list[Event]:
    """Return the events of one turn of every kind: texts, calls, results, bytes, state, an error."""
    made: list[tuple[str, list[types.Part], dict[str, Any]]] = [
        ("user", [types.Part(text=f"Question {number} \N{STEAM LOCOMOTIVE}")], {}),
        (
            "trains",
            [types.Part(function_call=types.FunctionCall(id="c1", name="table", args={"to": "Bergen", "n": [1, 2.5]}))],
            {"long_running_tool_ids": {"c1"}},
        ),
        (
            "trains",
            [types.Part(function_response=types.FunctionResponse(id="c1", name="table", response={"at": "16:05"}))],
            {"actions": EventActions(state_delta={"last": number, "user:seen": number, "app:count": number})},
        ),
        (
            "trains",
            [types.Part(inline_data=types.Blob(data=b"\x00\xff\x89PNG", mime_type="image/png"))],
            {"actions": EventActions(artifact_delta={"map.png": 1}, transfer_to_agent="hotels")},
        ),
    ]
    return [
        Event(
            author=author,
            invocation_id=f"i{number}",
            content=types.Content(role="user" if author == "user" else "model", parts=parts),
            timestamp=START + number * 100 + place + 0.123456,
            **extra,
        )
        for place, (author, parts, extra) in enumerate(made)
    ]


async def fill_adk(url: str, sessions: dict[tuple[str, str, str], int], *, first: int = 0) -> None:
    """Store so many turns of sessions as ADK does; those that are there go on."""
    service = DatabaseSessionService(url)
    try:
        for (app, user, session_id), turns in sessions.items():
            names: dict[str, Any] = {"app_name": app, "user_id": user, "session_id": session_id}
            session = await service.get_session(**names) or await service.create_session(
                **names, state={"app:name": app, "user:name": user, "own": {"deep": [1, None]}}
            )
            for number in range(first, first + turns):
                for event in events(number):
                    await service.append_event(session, event)
    finally:
        await service.close()


async def theirs(url: str, keys: Any) -> dict[Any, Session | None]:
    """Return the sessions as ADK's service reads them."""
    service = DatabaseSessionService(url)
    try:
        return {
            (app, user, session_id): await service.get_session(app_name=app, user_id=user, session_id=session_id)
            for app, user, session_id in keys
        }
    finally:
        await service.close()


async def fill_adk_v0(url: str, key: tuple[str, str, str], turns: int) -> None:
    """Store a session in the older layout, with everything that its pickles may hold."""
    app, user, session_id = key
    confirmation = ToolConfirmation(hint="sure?", confirmed=True, payload={"n": 1})
    credential = AuthCredential(auth_type=AuthCredentialTypes.API_KEY, api_key="key")
    scheme: Any = {"type": "apiKey", "name": "x", "in": "header"}
    more = EventActions(
        state_delta={"when": "now", "numbers": [1, 2**80, -1.5], "nested": {"a": (1, 2)}},
        requested_tool_confirmations={"c1": confirmation},
        requested_auth_configs={
            "c1": AuthConfig(auth_scheme=scheme, raw_auth_credential=credential, credential_key="k")
        },
        escalate=True,
    )
    async with opened(url) as engine:
        async with engine.begin() as connection:
            await connection.run_sync(v0.Base.metadata.create_all)
        from sqlalchemy.ext.asyncio import async_sessionmaker  # noqa: PLC0415

        async with async_sessionmaker(engine)() as db:
            moment = datetime.fromtimestamp(START, UTC).replace(tzinfo=None)
            row = v0.StorageSession(
                app_name=app, user_id=user, id=session_id, state={"own": 1}, create_time=moment, update_time=moment
            )
            db.add(row)
            await db.flush()
            session = Session(id=session_id, app_name=app, user_id=user)
            extra = Event(author="trains", invocation_id="x", actions=more, timestamp=START + 99_999)
            for event in [*(each for n in range(turns) for each in events(n)), extra]:
                db.add(v0.StorageEvent.from_event(session, event))
            db.add(v0.StorageAppState(app_name=app, state={"count": 1}))
            db.add(v0.StorageUserState(app_name=app, user_id=user, state={"seen": 1}))
            await db.commit()
