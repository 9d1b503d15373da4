"""Wake the tasks of this process that drain the outbox, from any thread that has committed something."""

from collections.abc import Iterator
from contextlib import contextmanager

from agent_service.core.bell import Bell

__all__ = ["hung_bell", "ring"]

_hung: set[Bell] = set()


@contextmanager
def hung_bell() -> Iterator[Bell]:
    """Yield a bell that :func:`ring` reaches until the block ends."""
    bell = Bell()
    _hung.add(bell)
    try:
        yield bell
    finally:
        _hung.discard(bell)


def ring() -> None:
    """Ring every bell of this process."""
    for bell in tuple(_hung):
        bell.ring()
