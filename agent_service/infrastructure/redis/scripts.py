"""Lua scripts: kept in ``lua/*.lua``, sent by digest, so that Redis compiles each one once.

Those that several files run are loaded here, the others where they are run.
"""

from dataclasses import dataclass, field
from hashlib import sha1
from importlib.resources import files

from agent_service.infrastructure.redis.transport.base import Command

__all__ = [
    "ENTRY_PUT",
    "EXPIRE",
    "INCREMENT",
    "LEASE_FILL",
    "LEASE_RENEW",
    "LEASE_TAKE",
    "LISTING_REMOVE",
    "RECORD_PUT",
    "TOKENS_TAKE",
    "Script",
    "load_script",
    "with_source",
]

_sources: dict[str, str] = {}
"""Every script that was loaded, by its digest."""


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script for ``RedisClient.run_script``. On a cluster all keys of one call must share a slot."""

    source: str
    call: tuple[str, str] = field(init=False)
    """How a command that runs it begins; the number of keys, the keys and the arguments follow."""

    def __post_init__(self) -> None:
        digest = sha1(self.source.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "call", ("EVALSHA", digest))
        _sources[digest] = self.source


def with_source(command: Command) -> Command:
    """Return the command of a script with its source instead of its digest, for a server that does not know it yet."""
    return ("EVAL", _sources[str(command[1])], *command[2:])


def load_script(*names: str) -> Script:
    """Read ``lua/{name}.lua``; several files make one script, whose first parts other scripts begin with, too."""
    folder = files(__package__).joinpath("lua")
    return Script("".join([folder.joinpath(f"{name}.lua").read_text(encoding="utf-8") for name in names]))


INCREMENT = load_script("held", "increment")
"""Add to a counter and return the sum as text; see the script for its keys and arguments."""

ENTRY_PUT = load_script("entry_put")
"""Store an entry and break its lease. Keys: entry, names of the lease. Arguments: value, milliseconds (0: for ever)."""

EXPIRE = load_script("expire")
"""Change until when an entry is fresh; see the script for its keys and arguments."""

TOKENS_TAKE = load_script("held", "tokens_take")
"""Return tokens, after making those that are missing.

Keys: tokens, of one slot, perhaps each under two names. Arguments: milliseconds that an entry with them will live (0:
for ever), and random bytes for each.
"""

LEASE_TAKE = load_script("held", "lease_take")
"""Take a lease; returns the token of the lease that is valid afterwards.

Keys: names of the lease. Arguments: a token, milliseconds, and what to do with a valid one: share, leave or break.
"""

LEASE_RENEW = load_script("held", "lease_renew")
"""Prolong or end a lease. Keys: its names. Arguments: its token, milliseconds (0: end). Returns 1 if it was valid."""

LEASE_FILL = load_script("held", "lease_fill")
"""Store an entry under a lease. Keys: entry, names of the lease. Arguments: token, value, milliseconds (0: for ever).
Returns 1 if stored."""

RECORD_PUT = load_script("record_write", "record_put")
"""Write fields of a record; see the script for its keys and arguments."""

LISTING_REMOVE = load_script("listing_remove")
"""Delete records and take them out of the set that lists them; see the script for its keys and arguments."""
