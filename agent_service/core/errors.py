"""Every exception the package raises, in one tree.

::

    AgentServiceError
    ├── ConfigurationError            (also ValueError)
    ├── CacheError                    misuse of a cache; an outage is never raised by a cache
    │   ├── CacheKeyError             (also TypeError, ValueError)
    │   ├── CacheValueError           (also TypeError, ValueError)
    │   ├── CacheSerializationError   (also TypeError)
    │   │   └── UndecodableError      stored bytes that no version of the package wrote; caches count a miss
    │   ├── LoadTimeoutError          (also TimeoutError) a load took longer than its caller would wait
    │   └── ReentrantLoadError        (also RuntimeError)
    ├── RateLimitError
    │   ├── RateLimitExceededError    more was asked for than a limiter lets through now
    │   └── RateLimitValueError       (also ValueError) a key or weight that a limiter cannot use
    ├── BridgeError                   (also RuntimeError) a thread could not await on an event loop
    │   └── BridgeTimeoutError        (also TimeoutError)
    ├── RuntimeStateError             (also RuntimeError) there is no runtime, or another one
    ├── RedisOperationError           raised by the Redis room only
    │   ├── RedisUnavailableError     the server cannot be reached, or did not answer in time
    │   │   └── RedisBusyError        this process asks more at once than its connections can carry
    │   ├── RedisUnreplicatedError    it was done, and too few replicas have confirmed it
    │   ├── RedisRefusedError         the server is there and cannot serve now: OOM, READONLY, LOADING, MISCONF
    │   └── RedisCommandError         the command is wrong: WRONGTYPE, bad arguments
    │       └── RedisDeniedError      the server denies the command, its keys or the login: a fault of configuration
    ├── RecordValueError              (also TypeError, ValueError) an argument that a record in Redis cannot use
    ├── ContextError
    │   ├── ContextStoreError         a context store failed, or was given a key or value it cannot store
    │   ├── ContextKeyError           (also LookupError)
    │   └── ContextConfigError        (also ConfigurationError)
    ├── StateStoreError               a state store failed, or what it holds or was given cannot be used
    │   └── StateConflictError        an expected version no longer holds
    └── SessionError
        ├── SessionNotFoundError      (also LookupError)
        ├── SessionValueError         (also ValueError)
        ├── SessionConflictError      an expected version or sequence number no longer holds
        └── DatabaseError
            ├── DatabaseUnavailableError
            └── TransactionConflictError  (also SessionConflictError) another transaction came between; repeat this one

A cache degrades, a store raises: errors of drivers never leave the rooms that own those drivers; they arrive as one of
the above with the original as ``__cause__``.
"""

__all__ = [
    "AgentServiceError",
    "BridgeError",
    "BridgeTimeoutError",
    "CacheError",
    "CacheKeyError",
    "CacheSerializationError",
    "CacheValueError",
    "ConfigurationError",
    "ContextConfigError",
    "ContextError",
    "ContextKeyError",
    "ContextStoreError",
    "DatabaseError",
    "DatabaseUnavailableError",
    "LoadTimeoutError",
    "RateLimitError",
    "RateLimitExceededError",
    "RateLimitValueError",
    "RecordValueError",
    "RedisBusyError",
    "RedisCommandError",
    "RedisDeniedError",
    "RedisOperationError",
    "RedisRefusedError",
    "RedisUnavailableError",
    "RedisUnreplicatedError",
    "ReentrantLoadError",
    "RuntimeStateError",
    "SessionConflictError",
    "SessionError",
    "SessionNotFoundError",
    "SessionValueError",
    "StateConflictError",
    "StateStoreError",
    "TransactionConflictError",
    "UndecodableError",
]


class AgentServiceError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigurationError(AgentServiceError, ValueError):
    """A setting or URL cannot be used; the message names it and never shows a secret."""


class CacheError(AgentServiceError):
    """A cache was used wrongly."""


class CacheKeyError(CacheError, TypeError, ValueError):
    """A key, namespace or pattern cannot be used, or an argument has no stable identity to make a key from."""


class CacheValueError(CacheError, TypeError, ValueError):
    """An argument of a cache operation has an unusable value: a TTL, an amount, a counter that is no integer."""


class CacheSerializationError(CacheError, TypeError):
    """A value cannot be written without losing something; nothing was stored."""


class UndecodableError(CacheSerializationError):
    """Stored bytes cannot be read: truncated, damaged, of an unknown format, or written by somebody else."""


class LoadTimeoutError(CacheError, TimeoutError):
    """A load took longer than its hard timeout and there was no value to serve in its place."""


class ReentrantLoadError(CacheError, RuntimeError):
    """A loader asked, directly or through other loads, for the key it is loading itself; waiting would never end."""


class RateLimitError(AgentServiceError):
    """A rate limiter did not let a call through; nothing was taken."""


class RateLimitExceededError(RateLimitError):
    """More was asked for than the limiter lets through now; in ``retry_after`` seconds it would."""

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RateLimitValueError(RateLimitError, ValueError):
    """A key or weight cannot be used, or the weight is more than the limiter ever lets through at once."""


class BridgeError(AgentServiceError, RuntimeError):
    """A thread cannot await on the event loop: wrong thread, the loop does not run, or the work was cancelled."""


class BridgeTimeoutError(BridgeError, TimeoutError):
    """What a thread waited for did not end in time and was cancelled."""


class RuntimeStateError(AgentServiceError, RuntimeError):
    """The runtime was not created, was shut down, or another one lives."""


class RedisOperationError(AgentServiceError):
    """A Redis command failed."""


class RedisUnavailableError(RedisOperationError):
    """Redis is not configured, cannot be reached, or did not answer within its deadline.

    ``maybe_executed`` is True when the command was sent and only its reply is missing.
    """

    def __init__(self, message: str, *, maybe_executed: bool = False) -> None:
        super().__init__(message)
        self.maybe_executed = maybe_executed


class RedisBusyError(RedisUnavailableError):
    """All connections of this process were busy until the operation had waited long enough; nothing was sent."""


class RedisUnreplicatedError(RedisOperationError):
    """The server did what it was asked, and fewer replicas than REDIS_WAIT_REPLICAS have confirmed it in time.

    ``result`` is what the operation would have returned. What was not confirmed is undone when a replica takes over.
    """

    def __init__(self, message: str, *, result: object = None) -> None:
        super().__init__(message)
        self.result = result


class RedisRefusedError(RedisOperationError):
    """Redis answered that it cannot serve the command now: out of memory, read-only replica, loading, failed save."""


class RedisCommandError(RedisOperationError):
    """Redis answered that the command is wrong; trying again cannot help."""


class RedisDeniedError(RedisCommandError):
    """Redis denies a command, its keys, or the login, until an operator changes the server's configuration or the URL.

    ``command`` is its name; ``lacks`` is "command" (not permitted, or unknown to this server), "key", "channel" or
    "login"; ``keys`` are the keys it had, if it lacks one; ``unknown`` tells that no permission can help, because the
    server does not know the command, or no longer under that name.
    """

    def __init__(
        self,
        message: str,
        *,
        command: str = "",
        lacks: str = "command",
        keys: tuple[bytes, ...] = (),
        unknown: bool = False,
    ) -> None:
        super().__init__(message)
        self.command = command
        self.lacks = lacks
        self.keys = keys
        self.unknown = unknown


class ContextError(AgentServiceError):
    """An operation on stored context failed."""


class ContextStoreError(ContextError):
    """A context store failed, or cannot store a key or value that it was given; its cause is what failed beneath."""


class ContextKeyError(ContextError, LookupError):
    """A key names nothing in the data structure that an adapter is about, or has a form unknown to the adapter."""


class ContextConfigError(ContextError, ConfigurationError):
    """A context configuration file cannot be used; the message names the file, the key and the remedy."""


class StateStoreError(AgentServiceError):
    """A state store failed, or what it holds or was given cannot be used; the message names the user and the reason."""


class StateConflictError(StateStoreError):
    """The user's context was saved since it was loaded: the expected version no longer holds, and nothing was saved."""


class RecordValueError(AgentServiceError, TypeError, ValueError):
    """An argument for a record in Redis, or for a tenant's repository, cannot be used; nothing was written."""


class SessionError(AgentServiceError):
    """An operation on stored sessions failed; nothing was written."""


class SessionNotFoundError(SessionError, LookupError):
    """The session does not exist, or belongs to another tenant, or was deleted."""


class SessionValueError(SessionError, ValueError):
    """An argument of a session operation is unusable; the message names it, shows what was given and what to do."""


class SessionConflictError(SessionError):
    """The session changed since it was read: the expected version or sequence number no longer holds.

    ``version`` is the one that the session has now; None where another conflict is meant, or it is not known.
    """

    def __init__(self, message: str, *, version: int | None = None) -> None:
        super().__init__(message)
        self.version = version


class DatabaseError(SessionError):
    """The database refused or failed a statement."""


class DatabaseUnavailableError(DatabaseError):
    """The database cannot be reached, or did not answer within its deadline."""


class TransactionConflictError(DatabaseError, SessionConflictError):
    """Another transaction came between, and this one was rolled back: begin it again, with all that was read in it."""
