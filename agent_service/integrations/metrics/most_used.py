"""Keep readings small: the most used namespaces and stores by name, and all others as one."""

from collections.abc import Mapping
from typing import Final, TypeAlias

from agent_service.integrations.metrics.catalogue import FAMILIES
from agent_service.integrations.metrics.reading import Buckets, Readings

__all__ = ["MOST_NAMED", "REST", "MostUsed"]

MOST_NAMED: Final = 50
"""Namespaces, and stores, that are shown by name."""
LONGEST: Final = 100
"""Characters of a name that is shown."""
REST: Final = "(rest)"
"""What all others are called."""
_CHOSEN_BY_CODE: Final = {"namespace": "cache_requests", "store": "store_operation_duration_seconds"}
"""Labels whose values the application chooses, and the families that tell how much each is used."""

_Found: TypeAlias = Mapping[tuple[str, ...], float | Buckets]


class MostUsed:
    """Decides, for one reader, which values of a label are shown by name.

    A name that was shown stays, and what was summed up is never taken out of the sum again: otherwise a counter would
    fall because another one rose. So when there are too many, those count that were used most by then.
    """

    def __init__(self) -> None:
        self._named: dict[str, set[str]] = {label: set() for label in _CHOSEN_BY_CODE}

    def bounded(self, readings: Readings) -> Readings:
        """Return the readings with the rest summed up."""
        for label, family in _CHOSEN_BY_CODE.items():
            _fill(self._named[label], readings[family])
        return {name: self._bounded(name, found) for name, found in readings.items()}

    def _bounded(self, name: str, found: _Found) -> dict[tuple[str, ...], float | Buckets]:
        named = self._named.get(next(iter(FAMILIES[name].labels), ""))
        summed: dict[tuple[str, ...], float | Buckets] = {}
        for labels, value in found.items():
            key = labels if named is None or labels[0] in named else (REST, *labels[1:])
            summed[key] = _sum(summed[key], value) if key in summed else value
        return summed


def _sum(first: float | Buckets, second: float | Buckets) -> float | Buckets:
    if isinstance(first, Buckets) or isinstance(second, Buckets):
        assert isinstance(first, Buckets)  # those of one family are of one kind
        assert isinstance(second, Buckets)
        return first + second
    return first + second


def _fill(named: set[str], usage: _Found) -> None:
    used: dict[str, float] = {}
    for (name, *_), value in usage.items():
        if name not in named and len(name) <= LONGEST:
            used[name] = used.get(name, 0) + (value.counts[-1] if isinstance(value, Buckets) else value)
    named.update(sorted(used, key=used.__getitem__, reverse=True)[: MOST_NAMED - len(named)])
