"""Every metric of the package: its name, what it means, and its labels.

Names are without the prefix ``agent_service_``, which all have outside, and without the ``_total`` of counters. Units
are seconds and bytes. Ratios are left to whoever reads. Labels have few values: namespaces, roles, outcomes and states,
never a user, a session, a key or a tenant.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from agent_service.core.histogram import SHOWN_SECONDS, SIZES

__all__ = ["FAMILIES", "PREFIX", "Family", "Kind"]

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]
PREFIX: Final = "agent_service_"


@dataclass(frozen=True, slots=True)
class Family:
    """A metric with all of its labels.

    :param kind: a counter only rises, until the process ends or its metrics are reset.
    :param known: label values that are shown from the beginning, at 0.
    :param bounds: of a histogram's buckets.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    known: tuple[tuple[str, ...], ...] = ()
    bounds: tuple[float, ...] = ()

    @property
    def exposed(self) -> str:
        """The name by which other programs know it."""
        return f"{PREFIX}{self.name}{'_total' if self.kind == 'counter' else ''}"


def _counter(name: str, text: str, *labels: str, known: Sequence[tuple[str, ...]] = ()) -> Family:
    return Family(name, "counter", text, labels, _from_the_beginning(labels, known))


def _gauge(name: str, text: str, *labels: str, known: Sequence[tuple[str, ...]] = ()) -> Family:
    return Family(name, "gauge", text, labels, _from_the_beginning(labels, known))


def _seconds(name: str, text: str, *labels: str, known: Sequence[tuple[str, ...]] = ()) -> Family:
    return Family(name, "histogram", text, labels, _from_the_beginning(labels, known), SHOWN_SECONDS)


def _from_the_beginning(labels: tuple[str, ...], known: Sequence[tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
    return tuple(known) if labels else ((),)


def _each(*values: str) -> list[tuple[str, ...]]:
    return [(value,) for value in values]


_DATABASES: Final = ("primary", "replica", "other")
_WAYS: Final = ("writer", "repository")
_OUTCOMES: Final = ("ok", "refused", "unavailable", "failed", "cancelled")

_ALL: Final = (
    # caches
    _counter(
        "cache_requests",
        "Reads of a cache: answered from the backend (hit), from a copy in memory before Redis (l1_hit), with a stale "
        "value that the call allowed (stale), or not (miss).",
        "namespace",
        "result",
        known=[("default", result) for result in ("hit", "l1_hit", "stale", "miss")],
    ),
    _counter(
        "cache_loads",
        "Calls of loaders that have ended, by whether they gave a value.",
        "namespace",
        "outcome",
        known=[("default", "ok"), ("default", "error")],
    ),
    _seconds("cache_load_duration_seconds", "How long loaders took.", "namespace", known=_each("default")),
    _counter(
        "cache_refreshes",
        "Loads in the background, before a value is stale or after it was served stale.",
        "namespace",
        known=_each("default"),
    ),
    _counter("cache_sets", "Values stored.", "namespace", known=_each("default")),
    _counter("cache_increments", "Counters changed.", "namespace", known=_each("default")),
    _counter("cache_deletes", "Keys deleted.", "namespace", known=_each("default")),
    _counter(
        "cache_errors",
        "Values that could not be stored or read as their types ask.",
        "namespace",
        known=_each("default"),
    ),
    _counter(
        "cache_undecodable",
        "Entries that no version of this package wrote, served as misses.",
        "namespace",
        known=_each("default"),
    ),
    _counter(
        "cache_fill_rejected",
        "Loaded values that were not stored because an invalidation came first.",
        "namespace",
        known=_each("default"),
    ),
    _counter(
        "cache_pattern_clears",
        "Namespaces that were invalidated as a whole because there were too many patterns.",
        "namespace",
        known=_each("default"),
    ),
    _counter(
        "cache_unreplicated",
        "Invalidations that too few replicas had confirmed in time; they are sent again.",
        "namespace",
        known=_each("default"),
    ),
    _gauge("cache_entries", "Entries in the memory of this process, also those that stand in for Redis.", "namespace"),
    _gauge(
        "cache_breaker",
        "Event loops whose circuit breaker before Redis has this state; closed means that Redis serves.",
        "state",
        known=_each("closed", "open", "half_open", "recovering"),
    ),
    _gauge("cache_journal_length", "Operations that Redis missed and that are replayed to it when it is back."),
    _gauge("cache_journal_bytes", "What these operations take, in bytes."),
    _counter(
        "cache_journal_collapsed",
        "Namespaces whose journal grew too long and became one invalidation of all, which forgets increments.",
    ),
    _gauge("cache_denied", "1 while the server denies commands or keys that caches need, else 0."),
    _gauge(
        "cache_l1",
        "Event loops whose stream of changes in Redis has this state; copies in memory are served while it is live.",
        "state",
        known=_each("connecting", "live", "down", "unsupported", "closed"),
    ),
    # Redis
    _seconds("redis_command_duration_seconds", "How long operations on Redis took, once they had a connection."),
    _counter(
        "redis_errors",
        "Operations on Redis that failed: no server or no answer (unavailable), it cannot serve now (refused), not "
        "permitted (denied), or wrong (command).",
        "kind",
        known=_each("unavailable", "refused", "denied", "command"),
    ),
    Family(
        "redis_available",
        "gauge",
        "1 if the latest operation reached Redis, or there was none yet; 0 if not. Not shown where there is no client.",
    ),
    _gauge(
        "redis_operations",
        "Operations that hold a connection (running) or wait for one (waiting).",
        "state",
        known=_each("running", "waiting"),
    ),
    # database
    _gauge(
        "db_pool_connections",
        "Connections of the pool.",
        "database",
        "state",
        known=[(database, state) for database in _DATABASES for state in ("in_use", "idle")],
    ),
    _gauge("db_pool_connections_limit", "The most connections of the pool.", "database", known=_each(*_DATABASES)),
    _seconds(
        "db_pool_wait_seconds",
        "How long it took to get a connection; connecting counts, where that was necessary.",
        "database",
        known=_each(*_DATABASES),
    ),
    _counter(
        "db_pool_failures",
        "How often no connection was to be had: all were in use for too long, or the server was not reached.",
        "database",
        known=_each(*_DATABASES),
    ),
    # sessions
    _counter(
        "session_appends",
        "Messages by who appended them and what came of it; ok counts those that were appended before, too.",
        "via",
        "outcome",
        known=[(way, outcome) for way in _WAYS for outcome in _OUTCOMES],
    ),
    _seconds(
        "session_append_duration_seconds",
        "How long appending took, from the call to its answer.",
        "via",
        known=_each(*_WAYS),
    ),
    _gauge("writer_pending", "Messages that wait for a writer's answer."),
    _seconds("writer_commit_duration_seconds", "How long the transactions of writers took, also those that failed."),
    Family("writer_batch_size", "histogram", "Messages in such a transaction.", known=((),), bounds=SIZES),
    _gauge("feed_subscriptions", "Subscriptions to sessions."),
    _gauge("feed_sessions", "Sessions that are subscribed to."),
    _counter("cleanup_rounds", "Rounds of the cleanup that were begun."),
    _counter("cleanup_failures", "Rounds of the cleanup that failed."),
    _counter(
        "cleanup_sessions",
        "Sessions that the cleanup has completed, or removed for good (purged).",
        "action",
        known=_each("completed", "purged"),
    ),
    _counter("cleanup_purged_threads", "Threads of checkpoints that the cleanup has removed, because they were idle."),
    _counter("cleanup_expired_contexts", "Contexts that the cleanup has removed, because their time to live was over."),
    _gauge("cleanup_last_round_seconds", "How long the latest round of the cleanup took."),
    _gauge(
        "cleanup_last_success_timestamp_seconds",
        "When a round of the cleanup last went well, in Unix time; 0: not yet.",
    ),
    # outbox
    _counter("outbox_applied", "Rows of the outbox that were applied."),
    _counter("outbox_unreadable", "Rows of the outbox that cannot be read and were set aside."),
    _counter("outbox_failures", "Passes over the outbox that failed or could not reach Redis."),
    _gauge("outbox_pending", "Rows that the last pass over the outbox left; 10000 means that many or more."),
    _gauge("outbox_oldest_age_seconds", "How long ago the oldest of these was added."),
    # triggers
    _counter(
        "trigger_attempts",
        "Handlers of triggers that have ended, by whether they raised.",
        "outcome",
        known=_each("ok", "failed"),
    ),
    _counter("triggers_dead", "Triggers that failed for the last time."),
    _gauge("triggers_running", "Handlers of triggers that run."),
    _gauge("triggers_pending", "Pairs of tenant and action with a trigger, when they were last looked up."),
    _gauge("triggers_late", "Those of them whose trigger had been due for 10 seconds and was not claimed."),
    _gauge("triggers_unhandled", "Pairs that were due and whose action has no handler in this process."),
    # context and state
    _seconds("store_operation_duration_seconds", "How long operations of context and state stores took.", "store"),
    _counter("store_errors", "Operations of context and state stores that failed.", "store"),
)

FAMILIES: Final = {family.name: family for family in _ALL}
"""By name, in the order in which they are shown."""
