"""PostgreSQL's locks on a table."""

from enum import Enum

__all__ = ["Lock"]


class Lock(Enum):
    """The locks on a table that steps take, as PostgreSQL calls them; the weakest first."""

    ACCESS_SHARE = "ACCESS SHARE"
    ROW_SHARE = "ROW SHARE"
    ROW_EXCLUSIVE = "ROW EXCLUSIVE"
    SHARE_UPDATE_EXCLUSIVE = "SHARE UPDATE EXCLUSIVE"
    SHARE = "SHARE"
    SHARE_ROW_EXCLUSIVE = "SHARE ROW EXCLUSIVE"
    EXCLUSIVE = "EXCLUSIVE"
    ACCESS_EXCLUSIVE = "ACCESS EXCLUSIVE"

    @property
    def strength(self) -> int:
        """0 for the weakest."""
        return list(Lock).index(self)

    @property
    def others_read(self) -> bool:
        """Whether others can read meanwhile."""
        return self is not Lock.ACCESS_EXCLUSIVE

    @property
    def others_write(self) -> bool:
        """Whether others can add and change rows meanwhile."""
        return self.strength <= Lock.SHARE_UPDATE_EXCLUSIVE.strength
