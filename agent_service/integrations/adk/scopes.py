"""The scopes of ADK's state: what a key's prefix says about how long a value lives and who shares it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from google.adk.sessions.state import State

__all__ = ["Scopes", "is_temporary", "merged", "split"]

_APP: Final[str] = State.APP_PREFIX
_USER: Final[str] = State.USER_PREFIX
_TEMP: Final[str] = State.TEMP_PREFIX


@dataclass(slots=True)
class Scopes:
    """State by scope, without prefixes: of the app, of its user, and of the session."""

    app: dict[str, Any] = field(default_factory=dict)
    user: dict[str, Any] = field(default_factory=dict)
    session: dict[str, Any] = field(default_factory=dict)


def split(state: Mapping[str, Any]) -> Scopes:
    """Sort state by the prefixes of its keys; what is under ``temp:`` is left out."""
    scopes = Scopes()
    for key, value in state.items():
        if key.startswith(_APP):
            scopes.app[key.removeprefix(_APP)] = value
        elif key.startswith(_USER):
            scopes.user[key.removeprefix(_USER)] = value
        elif not is_temporary(key):
            scopes.session[key] = value
    return scopes


def merged(scopes: Scopes) -> dict[str, Any]:
    """Return the state that an agent sees, with prefixes."""
    return {
        **scopes.session,
        **{_APP + key: value for key, value in scopes.app.items()},
        **{_USER + key: value for key, value in scopes.user.items()},
    }


def is_temporary(key: str) -> bool:
    """Whether a key's value lives as long as an invocation, and is never stored."""
    return isinstance(key, str) and key.startswith(_TEMP)
