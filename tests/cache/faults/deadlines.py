"""How long a call may be held, as it follows from how caches are made.

Each operation on Redis ends within the timeout. The first that gets no answer opens the breaker, and what is left of
its call is served from memory. So a call waits once for an answer that does not come, and before that for as many
answers as it has round trips. Some calls wait for others, too: for a load that they join, which may get no answer
either, or, before they write, for a recovery to end, which is given as much time as an operation.
"""

from tests.cache.faults.user import HARD_TIMEOUT

__all__ = ["allowed"]

_ROUND_TRIPS = {
    "get": 2,  # the entry with the tokens expected; those of tags that were not
    "lookup": 2,
    "get_many": 4,  # one for all, and one for each entry with tags
    "exists": 3,  # the beginning of the entry, all of its head if it is long, tokens
    "ttl": 3,
    "scan": 8,  # two pages, and for each what exists takes
    "set": 4,  # tokens, then until no other clears meanwhile
    "set_many": 5,  # the leases first
    "increment": 6,  # until the token is known, twice with a look at what is there
    "expire": 6,  # exists, tokens, and the stamp in the entry read and written
    "delete": 3,
    "delete_many": 5,
    "delete_pattern": 14,  # leases: two pages, two removals; entries: two pages, for each what delete_many takes
    "invalidate_tags": 1,
    "clear": 1,
    "hard_timeout": 3,  # a look, and the lease of a load that began before
    "@cached": 8,  # two looks with the lease between them; the load that is joined: lease, storing, giving it back
    "get_or_load": 8,
    "get_or_load_many": 13,  # the lease of each key that is being loaded
}
"""How many round trips a call makes at most, one after the other."""

_WAIT_ONCE = frozenset({"get", "lookup", "get_many", "exists", "ttl", "scan", "hard_timeout"})
"""Calls that wait for nobody else."""


def allowed(name: str, timeout: float, delay: float) -> float:
    """Seconds that a call may take.

    :param delay: seconds that a round trip takes that is answered.
    """
    unanswered = 1 if name in _WAIT_ONCE else 2
    hard = HARD_TIMEOUT if name == "hard_timeout" else 0.0
    return unanswered * timeout + _ROUND_TRIPS[name] * delay + hard
