"""What the entries of one namespace, and the bookkeeping beside them, are called in Redis."""

from agent_service.core.keys import (
    former_internal_key,
    glob_escape,
    internal_key,
    key_prefix,
    name_beside,
    root_prefix,
)
from agent_service.infrastructure.redis.former_names import FormerNames

__all__ = ["EntryNames"]


class EntryNames:
    """The names of one namespace's keys."""

    def __init__(self, prefix: str, namespace: str, former: FormerNames) -> None:
        self.prefix = key_prefix(prefix, namespace)
        """What every entry's name begins with."""
        self.confirmed = internal_key(prefix, "confirmed", "")
        """What is written before replicas are waited for."""
        self._root = prefix
        self._former = former
        self._lease = internal_key(prefix, "lease", "")
        self._former_lease = former_internal_key(prefix, "lease", "")
        self.any_lease = glob_escape(root_prefix(prefix)[:-1].decode()).encode() + b"*%lease:*"
        """A glob that matches the leases of all namespaces, under both names, and little else."""

    def physical(self, key: str) -> bytes:
        """Name the entry of a key."""
        return self.prefix + key.encode()

    def limit(self, name: str) -> bytes:
        """Name what a rate limiter has let through."""
        return internal_key(self._root, "limit", name)

    def leases(self, entry: bytes) -> tuple[bytes, ...]:
        """Name the lease of an entry, in the same slot of a cluster; the few entries without any have none.

        Where old names are in use there are two for one lease, and the first, which old processes know, decides.
        """
        if b"{" not in entry and b"}" not in entry:  # the usual case of name_beside, at once
            hashed = b"{" + entry + b"}"
            if self._former.in_use:
                return self._former_lease + hashed, self._lease + hashed
            return (self._lease + hashed,)
        stems = (self._former_lease, self._lease) if self._former.in_use else (self._lease,)
        return tuple([name for stem in stems if (name := name_beside(stem, entry)) is not None])

    def entry(self, lease: bytes) -> bytes | None:
        """Return the key, within this namespace, of the entry that a lease belongs to."""
        for stem in (self._lease, self._former_lease):
            if lease.startswith(stem):
                name = lease[len(stem) :]
                if name.startswith(b"{") and name.endswith(b"}") and name_beside(stem, name[1:-1]) == lease:
                    name = name[1:-1]
                return name[len(self.prefix) :] if name.startswith(self.prefix) else None
        return None

    def changes(self, entry: bytes, process: str, *, shared: bool) -> bytes:
        """Name what remembers the changes of a process to the counter ``entry``, which has a lease.

        :param shared: whether one key may serve all counters, because there is no cluster.
        """
        name = internal_key(self._root, "changes", process)
        return name if shared else name_beside(name + b":", entry) or name
