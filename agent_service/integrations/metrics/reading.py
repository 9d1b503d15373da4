"""The values of all metrics of this process at one moment. No I/O."""

from dataclasses import dataclass
from typing import Self, TypeAlias

from agent_service.core.histogram import Histogram
from agent_service.core.measured import samples
from agent_service.integrations.metrics.catalogue import FAMILIES, Family

__all__ = ["Buckets", "Readings", "read", "zero"]


@dataclass(frozen=True, slots=True)
class Buckets:
    """A histogram at one moment.

    :param counts: how many values did not exceed each bound of the family, and at last how many there were.
    """

    total: float
    counts: tuple[int, ...]

    def __add__(self, other: Self) -> Self:
        counts = tuple([mine + others for mine, others in zip(self.counts, other.counts, strict=True)])
        return type(self)(self.total + other.total, counts)


Readings: TypeAlias = dict[str, dict[tuple[str, ...], float | Buckets]]
"""By family, then by the values of its labels."""


def read() -> Readings:
    """Return what this process measures: every family of the catalogue, known label values at 0 from the beginning."""
    readings: Readings = {name: dict.fromkeys(family.known, zero(family)) for name, family in FAMILIES.items()}
    for sample in samples():
        readings[sample.name][sample.labels] = _value(FAMILIES[sample.name], sample.value)
    return readings


def zero(family: Family) -> float | Buckets:
    """Return what a family shows before anything happened."""
    return Buckets(0.0, (0,) * (len(family.bounds) + 1)) if family.kind == "histogram" else 0.0


def _value(family: Family, value: float | Histogram) -> float | Buckets:
    if isinstance(value, Histogram):
        return Buckets(value.total, tuple(value.cumulative(family.bounds)))
    return float(value)
