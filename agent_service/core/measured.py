"""What the parts of this process measure, as samples that anybody may read.

A room that measures something registers a function that reads it. Reading is synchronous, asks no server and may happen
on any thread. What the names mean is written down in one place, ``agent_service.integrations.metrics.catalogue``.
"""

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from agent_service.core.histogram import Histogram

__all__ = ["Sample", "Samples", "measured_by", "samples"]


class Sample(NamedTuple):
    """One measured value.

    :param name: as in the catalogue.
    :param value: a number, or a histogram that goes on counting.
    :param labels: values of the labels, in the order of the catalogue.
    """

    name: str
    value: float | Histogram
    labels: tuple[str, ...] = ()


Samples = Callable[[], Iterable[Sample]]

_sources: Final[dict[str, Samples]] = {}


def measured_by(part: str, read: Samples) -> None:
    """Have the samples of a part of the package read by a function, in place of the one before."""
    _sources[part] = read


def samples() -> list[Sample]:
    """Return what every part that was imported measures now."""
    return [sample for read in list(_sources.values()) for sample in read()]
