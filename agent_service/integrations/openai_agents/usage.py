"""What each turn has used: requests and tokens, noted in the metadata of the session."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol
from uuid import UUID, uuid4

from agent_service.core.errors import SessionValueError, UndecodableError
from agent_service.core.fixed import plain
from agent_service.infrastructure.database.errors.sessions import session_not_found
from agent_service.infrastructure.database.repositories.session import SessionRepository
from agent_service.infrastructure.database.values.validation import require_identifier
from agent_service.integrations.openai_agents.base import SessionBase
from agent_service.integrations.openai_agents.lasting import to_its_end

if TYPE_CHECKING:
    from agents import ModelResponse

    from agent_service.integrations.openai_agents.sdk import Wrapper

__all__ = ["USAGE", "MeasuredSession", "SessionUsage", "TurnUsage", "UsageSum", "without_usage"]

USAGE: Final = "openai_agents_usage"
"""The key in a session's metadata."""
KEPT: Final = 100
"""Turns that are kept one by one; of those before, only the sum is."""


@dataclass(frozen=True, slots=True)
class UsageSum:
    """What one turn or many have used. Cached tokens are among the input's, and reasoning's among the output's."""

    requests: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: "UsageSum") -> "UsageSum":
        return UsageSum(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(UsageSum)))


@dataclass(frozen=True, slots=True)
class TurnUsage:
    """What one turn has used.

    :param turn: tells turns apart.
    :param seq: the session's last number when it was noted.
    """

    turn: str
    seq: int
    recorded_at: datetime
    usage: UsageSum


@dataclass(frozen=True, slots=True)
class SessionUsage:
    """What a session has used: the sum of all turns, and the latest turns one by one, the oldest first."""

    total: UsageSum
    turns: Sequence[TurnUsage]


class Ran(Protocol):
    """What a Runner returns: a ``RunResult`` or a ``RunResultStreaming``."""

    raw_responses: "list[ModelResponse]"


class MeasuredSession(SessionBase):
    """The part of a session that notes usage."""

    async def record_usage(
        self, result: Ran, *, turn: str | None = None, wrapper: "Wrapper | None" = None
    ) -> TurnUsage:
        """Note what a run has used as one turn, and return that.

        Recording a turn again replaces what was noted. So a run that was interrupted and resumed may be recorded each
        time it returns, and a retry counts nothing twice.

        :param result: what the Runner returned.
        :param turn: tells turns apart; None is the id of the run's first response. Give one where the provider has no
            response ids: without both, each call is a turn of its own.
        :raises SessionValueError: ``result`` has no responses to count, or ``turn`` cannot be stored.
        """
        responses = getattr(result, "raw_responses", None)
        if not isinstance(responses, list):
            raise SessionValueError(f"result must be what the Runner returned, got {type(result).__name__}")
        name = turn or next((each.response_id for each in responses[:1] if each.response_id), None) or uuid4().hex
        require_identifier(name, "turn")
        used = sum(map(_used, responses), UsageSum())

        async def note(repo: SessionRepository, key: UUID) -> TurnUsage:
            session = await repo.get(key, lock=True)
            if session is None:
                raise session_not_found(key, repo.tenant_id)
            noted = TurnUsage(name, session.last_seq, datetime.now(UTC), used)
            earlier, turns = _read(session.session_metadata)
            turns = [*(each for each in turns if each.turn != name), noted]
            earlier = sum((each.usage for each in turns[:-KEPT]), earlier)
            await repo.update_session_metadata(key, {USAGE: _written(earlier, turns[-KEPT:])})
            return noted

        return await to_its_end(self._writing(self._owner(wrapper), note))

    async def usage(self, *, wrapper: "Wrapper | None" = None) -> SessionUsage:
        """Return what was noted: the sum of all turns, and the latest 100 turns one by one."""

        async def read(repo: SessionRepository, key: UUID) -> Mapping[str, Any]:
            session = await repo.get(key)
            return {} if session is None else session.session_metadata

        earlier, turns = _read(await self._reading(self._owner(wrapper), read, {}))
        return SessionUsage(sum((each.usage for each in turns), earlier), turns)


def without_usage(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata without what was noted of usage."""
    return {name: value for name, value in plain(metadata).items() if name != USAGE}


def _used(response: "ModelResponse") -> UsageSum:
    usage = response.usage
    return UsageSum(
        usage.requests,
        usage.input_tokens,
        usage.input_tokens_details.cached_tokens or 0,
        usage.output_tokens,
        usage.output_tokens_details.reasoning_tokens or 0,
    )


def _read(metadata: Mapping[str, Any]) -> tuple[UsageSum, list[TurnUsage]]:
    noted = plain(metadata).get(USAGE)
    if noted is None:
        return UsageSum(), []
    try:
        return UsageSum(**noted["earlier"]), [
            TurnUsage(each["turn"], each["seq"], datetime.fromisoformat(each["at"]), UsageSum(**each["usage"]))
            for each in noted["turns"]
        ]
    except (KeyError, TypeError, ValueError) as exc:
        raise UndecodableError(
            f"{USAGE} in the session's metadata is not what record_usage() noted ({type(exc).__name__}); "
            "remove it by update_session_metadata(..., delete_keys=[...]), or by clear_session()"
        ) from exc


def _written(earlier: UsageSum, turns: Iterable[TurnUsage]) -> dict[str, Any]:
    return {
        "earlier": asdict(earlier),
        "turns": [
            {"turn": each.turn, "seq": each.seq, "at": each.recorded_at.isoformat(), "usage": asdict(each.usage)}
            for each in turns
        ],
    }
