"""The files whose correctness cannot be seen from outside, and the rooms of tests that are asked about them."""

from collections.abc import Iterable
from pathlib import Path

__all__ = ["TARGETS", "find_targets", "find_tests"]

_QUERIES = "agent_service/infrastructure/database/queries"
_DATABASE = "agent_service/infrastructure/database"
_CACHE = "agent_service/infrastructure/cache"
_REDIS = "agent_service/infrastructure/redis"

TARGETS = (
    # Appending, and what a tenant sees.
    f"{_QUERIES}/append.py",
    f"{_QUERIES}/batch*.py",
    f"{_QUERIES}/scope.py",
    f"{_QUERIES}/lineage.py",
    f"{_QUERIES}/fork_copies.py",
    f"{_QUERIES}/locks.py",
    f"{_QUERIES}/outbox.py",
    f"{_DATABASE}/writer.py",
    f"{_DATABASE}/delivery.py",
    f"{_DATABASE}/group_commit.py",
    # Following.
    f"{_DATABASE}/repositories/feed.py",
    f"{_DATABASE}/notifications.py",
    f"{_CACHE}/feed.py",
    f"{_REDIS}/tracking/notifications.py",
    # The invalidation wins.
    f"{_CACHE}/leases.py",
    f"{_CACHE}/grants.py",
    f"{_CACHE}/tokens.py",
    f"{_CACHE}/redis_counters.py",
    f"{_CACHE}/fallback/journal.py",
    f"{_CACHE}/fallback/pending.py",
    f"{_CACHE}/fallback/replay.py",
    "agent_service/context/fences/redis.py",
    "agent_service/context/fences/local.py",
    "agent_service/context/fences/cache.py",
    "agent_service/context/key_locks.py",
    # Records and triggers.
    f"{_REDIS}/records/record.py",
    f"{_REDIS}/records/sets.py",
    f"{_REDIS}/records/listing.py",
    "agent_service/tenants/schedule.py",
    "agent_service/tenants/batch.py",
    f"{_REDIS}/lua/*.lua",
)

_ROOMS = {
    f"{_DATABASE}/": ("database", "outbox"),
    f"{_CACHE}/": ("cache", "context", "outbox", "access"),
    "agent_service/context/": ("context",),
    "agent_service/tenants/": ("tenants",),
    f"{_REDIS}/lua/trigger": ("tenants",),
    f"{_REDIS}/lua/batch": ("tenants",),
    f"{_REDIS}/lua/record": ("tenants", "context"),
    f"{_REDIS}/lua/listing": ("tenants", "context"),
    f"{_REDIS}/lua/index": ("tenants",),
    f"{_REDIS}/lua/fence": ("context", "redis"),
    f"{_REDIS}/lua/": ("cache", "redis"),
    f"{_REDIS}/tracking/notifications": ("redis", "tenants"),
    f"{_REDIS}/record_fence": ("context", "redis"),
    f"{_REDIS}/records/": ("tenants", "context"),
    f"{_REDIS}/": ("redis", "cache", "access"),
}


def find_tests(root: Path, path: str, wanted: Iterable[str]) -> set[str]:
    """Return the files of tests that are asked about a file: those of its rooms, else those that match ``wanted``."""
    rooms = next(rooms for start, rooms in _ROOMS.items() if path.startswith(start))
    patterns = tuple(wanted) or tuple(f"tests/{room}/**/test_*.py" for room in rooms)
    return {test.relative_to(root).as_posix() for pattern in patterns for test in root.glob(pattern)}


def find_targets(root: Path, wanted: Iterable[str] = ()) -> list[str]:
    """Return the files, as paths in the checkout: the targets, else those that match ``wanted``."""
    patterns = tuple(wanted) or TARGETS
    found = {path.relative_to(root).as_posix() for pattern in patterns for path in root.glob(pattern)}
    return sorted(path for path in found if path.endswith((".py", ".lua")))
