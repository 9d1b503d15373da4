"""What the entries of one namespace, and the bookkeeping beside them, are called in Redis."""

from agent_service.core.keys import glob_escape, internal_key, key_prefix

__all__ = ["Names"]


class Names:
    """The names of one namespace's keys."""

    def __init__(self, prefix: str, namespace: str) -> None:
        self.prefix = key_prefix(prefix, namespace)
        """What every entry's name begins with."""
        self._root = prefix
        self._lease = internal_key(prefix, "lease", "")
        self.any_lease = glob_escape(self._lease.decode()).encode() + b"*"
        """A glob that matches the leases of all namespaces."""

    def physical(self, key: str) -> bytes:
        """Name the entry of a key."""
        return self.prefix + key.encode()

    def lease(self, entry: bytes) -> bytes | None:
        """Name the lease of an entry, in the same slot of a cluster; None for the few names that allow none."""
        return _beside(self._lease, entry)

    def entry(self, lease: bytes) -> bytes | None:
        """Give the key, within this namespace, of the entry that a lease belongs to."""
        name = lease[len(self._lease) :]
        if name.startswith(b"{") and _hashed(name) == name[1:-1]:
            name = name[1:-1]
        return name[len(self.prefix) :] if name.startswith(self.prefix) else None

    def changes(self, entry: bytes, process: str, *, shared: bool) -> bytes:
        """Name what remembers the changes of a process to the counter ``entry``, which has a lease.

        :param shared: whether one key may serve all counters, because there is no cluster.
        """
        name = internal_key(self._root, "changes", process)
        return name if shared else _beside(name + b":", entry) or name


def _beside(stem: bytes, entry: bytes) -> bytes | None:
    for name in (stem + entry, stem + b"{" + entry + b"}"):
        if _hashed(name) == _hashed(entry):
            return name
    return None


def _hashed(name: bytes) -> bytes:
    """What a cluster hashes of a name: its first ``{...}`` that is not empty, else all of it."""
    start = name.find(b"{")
    end = name.find(b"}", start + 1)
    return name[start + 1 : end] if start >= 0 and end > start + 1 else name
