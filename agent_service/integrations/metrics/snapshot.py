"""What one process measured at one moment, as bytes of a bounded size."""

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final, Self

import orjson

from agent_service.core.errors import ConfigurationError, UndecodableError
from agent_service.integrations.metrics.catalogue import FAMILIES, Family
from agent_service.integrations.metrics.most_used import MostUsed
from agent_service.integrations.metrics.reading import Buckets, Readings, read, zero

__all__ = ["VERSION", "ProcessSnapshot", "Snapshots"]

_FORMAT: Final = 1
_STARTED: Final = datetime.now(UTC)
VERSION: Final = version("agent-service")
"""Of this package."""


@dataclass(frozen=True, slots=True)
class ProcessSnapshot:
    """What one process measured.

    :param process: ``host:pid``. No two live processes share it, unless their hosts share a name.
    :param started_at: when the process began to measure, by its own clock.
    :param taken_at: when this was measured, by the same clock.
    :param version: of this package.
    :param readings: by family of the catalogue, then by the values of its labels.
    """

    process: str
    host: str
    pid: int
    started_at: datetime
    taken_at: datetime
    version: str
    readings: Readings = field(repr=False)

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of the values of a counter or gauge whose labels are as given; of a histogram, how many.

        ``snapshot.value("cache_requests", result="hit")`` is the hits of all namespaces.

        :raises ConfigurationError: there is no such metric, or it has no such label.
        """
        family = _family(name)
        positions = {_position(family, label): wanted for label, wanted in labels.items()}
        return sum(
            each.counts[-1] if isinstance(each, Buckets) else each
            for values, each in self.readings.get(name, {}).items()
            if all(values[position] == wanted for position, wanted in positions.items())
        )

    def label_values(self, name: str, label: str) -> list[str]:
        """Return the values that a label of a family has here, sorted.

        :raises ConfigurationError: there is no such metric, or it has no such label.
        """
        position = _position(_family(name), label)
        return sorted({values[position] for values in self.readings.get(name, {})})

    def percentile(self, name: str, percent: float) -> float:
        """Return what ``percent`` of the values of a histogram did not exceed: the bound of a bucket; 0.0 if empty.

        :raises ConfigurationError: there is no such histogram.
        """
        bounds = _family(name).bounds
        if not bounds:
            raise ConfigurationError(f"{name} is no histogram, so it has no percentiles; take its value()")
        merged = Buckets(0.0, (0,) * (len(bounds) + 1))
        for each in self.readings.get(name, {}).values():
            if isinstance(each, Buckets):
                merged += each
        rank = merged.counts[-1] * percent / 100
        reached = (bound for bound, count in zip(bounds, merged.counts, strict=False) if count and count >= rank)
        return next(reached, bounds[-1] if merged.counts[-1] else 0.0)

    def to_json(self) -> bytes:
        """Return it as JSON. What is 0 is left out, and each label value is written once."""
        words: dict[str, int] = {}
        readings = {
            name: [
                [*(words.setdefault(label, len(words)) for label in labels), plain]
                for labels, value in found.items()
                if (plain := _plain(value))
            ]
            for name, found in self.readings.items()
        }
        return orjson.dumps(
            {
                "format": _FORMAT,
                "process": self.process,
                "host": self.host,
                "pid": self.pid,
                "started_at": self.started_at.timestamp(),
                "taken_at": self.taken_at.timestamp(),
                "version": self.version,
                "words": list(words),
                "readings": {name: found for name, found in readings.items() if found},
            }
        )

    @classmethod
    def from_json(cls, data: bytes | str) -> Self:
        """Return the snapshot that :meth:`to_json` wrote. Families that this version does not know are left out.

        :raises UndecodableError: it was not written by it, or by a later version in another format.
        """
        try:
            found: Any = orjson.loads(data)
            if found["format"] != _FORMAT:
                raise UndecodableError(f"this is a snapshot of format {found['format']!r:.20}, not {_FORMAT}")
            return cls(
                process=str(found["process"]),
                host=str(found["host"]),
                pid=int(found["pid"]),
                started_at=datetime.fromtimestamp(found["started_at"], UTC),
                taken_at=datetime.fromtimestamp(found["taken_at"], UTC),
                version=str(found["version"]),
                readings=_readings(found["readings"], found["words"]),
            )
        except (ValueError, TypeError, LookupError, OverflowError, OSError, AttributeError) as exc:
            raise UndecodableError(f"this is no snapshot of a process ({type(exc).__name__})") from exc


class Snapshots:
    """Takes the snapshots of this process."""

    def __init__(self) -> None:
        self._host = socket.gethostname()
        self._most_used = MostUsed()

    def take(self) -> ProcessSnapshot:
        """Return what this process measures now. No I/O."""
        pid = os.getpid()
        return ProcessSnapshot(
            process=f"{self._host}:{pid}",
            host=self._host,
            pid=pid,
            started_at=_STARTED,
            taken_at=datetime.now(UTC),
            version=VERSION,
            readings=self._most_used.bounded(read()),
        )


def _family(name: str) -> Family:
    family = FAMILIES.get(name)
    if family is None:
        raise ConfigurationError(
            f"there is no metric {name!r:.80}; docs/observability.md lists all, each without agent_service_ and _total"
        )
    return family


def _position(family: Family, label: str) -> int:
    if label not in family.labels:
        raise ConfigurationError(
            f"{family.name} has no label {label!r:.80}; it has {', '.join(family.labels) or 'none'}"
        )
    return family.labels.index(label)


def _plain(value: float | Buckets) -> float | list[float]:
    if isinstance(value, Buckets):
        return [value.total, *value.counts] if value.counts[-1] else []
    return int(value) if value.is_integer() else value


def _readings(found: Mapping[str, list[list[Any]]], words: Sequence[str]) -> Readings:
    readings: Readings = {}
    for name, rows in found.items():
        family = FAMILIES.get(name)
        if family is None:
            continue
        readings[name] = dict.fromkeys(family.known, zero(family))
        for *labels, value in rows:
            if len(labels) == len(family.labels):
                readings[name][tuple([str(words[label]) for label in labels])] = _reading(family, value)
    return readings


def _reading(family: Family, value: Any) -> float | Buckets:
    if family.kind != "histogram":
        return float(value)
    total, *counts = value
    if len(counts) != len(family.bounds) + 1:
        raise ValueError("a histogram with other bounds")
    return Buckets(float(total), tuple(map(int, counts)))
