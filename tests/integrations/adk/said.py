"""Events as tests need them."""

from typing import Any

from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.sessions.base_session_service import BaseSessionService, GetSessionConfig
from google.adk.sessions.session import Session
from google.genai import types

APP, USER = "support", "ada"


def said(text: str = "Hi", *, author: str = "agent", state: dict[str, Any] | None = None, **fields: Any) -> Event:
    """What somebody says, and sets."""
    role = "user" if author == "user" else "model"
    content = types.Content(role=role, parts=[types.Part(text=text)])
    return Event(
        author=author, invocation_id="i", content=content, actions=EventActions(state_delta=state or {}), **fields
    )


def texts(session: Session) -> list[str]:
    """What was said, in the session's order."""
    return [part.text for event in session.events if event.content for part in event.content.parts or () if part.text]


async def read(service: BaseSessionService, session: Session, **config: Any) -> Session:
    """The session as it is stored."""
    found = await service.get_session(
        app_name=session.app_name,
        user_id=session.user_id,
        session_id=session.id,
        config=GetSessionConfig(**config) if config else None,
    )
    assert found is not None
    return found
