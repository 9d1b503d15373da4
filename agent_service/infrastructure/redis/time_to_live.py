"""Times to live, as commands and replies have them: in milliseconds."""

from agent_service.core.milliseconds import to_milliseconds

__all__ = ["lifetime_of", "seconds_left"]


def lifetime_of(ttl: float | None) -> int:
    """Return a TTL in milliseconds, at least one; 0 for None, which is no expiry."""
    return 0 if ttl is None else max(1, to_milliseconds(ttl))


def seconds_left(reply: int) -> float | None:
    """Return what PTTL says in seconds: infinity where a key does not expire, None where there is none."""
    if reply < 0:
        return None if reply == -2 else float("inf")
    return reply / 1000
