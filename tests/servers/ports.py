"""Ports that nobody else takes between the moment they are found free and the moment a server binds them.

They lie below the ports from which systems serve outgoing connections (32,768 and higher), the port of a cluster's bus
(port + 10,000) included. Each worker of a parallel run takes them from a slice of its own, one after the other, so that
no two workers find the same one; whoever else runs on the machine is met by trying again.
"""

import contextlib
import itertools
import os
import socket
from collections.abc import Iterator

LOWEST = 10_000
BUS = 10_000
SLICES = 20
PER_SLICE = BUS // SLICES


def free_port() -> int:
    """Return a port nobody listens on, with the port of a cluster's bus above it free as well."""
    while True:
        port = next(_ports)
        with contextlib.suppress(OSError), socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", port))
            second.bind(("127.0.0.1", port + BUS))
            return port


def _slice() -> int:
    """Return the worker's number; a process beside the workers begins where its id says."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    return int(worker.removeprefix("gw")) % SLICES if worker else os.getpid() % SLICES


_start = os.getpid() % PER_SLICE
_ports: Iterator[int] = (
    LOWEST + _slice() * PER_SLICE + number for number in itertools.cycle((*range(_start, PER_SLICE), *range(_start)))
)
