"""The adapters by name; a peer's is imported when it is asked for, because it comes with the ``bench`` extra."""

import importlib
import importlib.metadata

from benchmarks.conformance.adapter import Adapter
from benchmarks.conformance.ours import OURS

__all__ = ["PEERS", "installed", "library"]

PEERS = {
    "Cashews": ("benchmarks.conformance.peers.cashews", "cashews"),
    "Aiocache": ("benchmarks.conformance.peers.aiocache", "aiocache"),
    "AsyncLru": ("benchmarks.conformance.peers.async_lru", "async-lru"),
    "Cachebox": ("benchmarks.conformance.peers.cachebox", "cachebox"),
    "Theine": ("benchmarks.conformance.peers.theine", "theine"),
    "Dogpile": ("benchmarks.conformance.peers.dogpile", "dogpile.cache"),
}
"""Module and distribution of each peer's adapter."""


def library(name: str) -> type[Adapter]:
    """Return an adapter class."""
    if name in PEERS:
        adapter: type[Adapter] = getattr(importlib.import_module(PEERS[name][0]), name)
        return adapter
    return {each.__name__: each for each in OURS}[name]


def installed() -> dict[str, str]:
    """Return the version of each peer that is here."""
    found = {}
    for name, (_, distribution) in PEERS.items():
        try:
            found[name] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
