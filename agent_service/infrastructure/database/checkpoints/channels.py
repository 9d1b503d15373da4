"""Names of channels as the index of values takes them, which has no room for long ones.

A graph that waits for many nodes has a channel whose name holds all of theirs. For such a name its digest stands in the
index, and the versions of a checkpoint say which names these are.
"""

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Final

__all__ = ["MAX_CHANNEL", "index_name", "read_versions", "write_versions"]

MAX_CHANNEL: Final = 400
"""Most bytes of a name that stands in the index itself."""
_LONG: Final = ""
"""Where versions keep the long names, as JSON; no channel has this name."""


def index_name(channel: str) -> str:
    """Return what stands for a channel in the index."""
    if len(channel) * 4 <= MAX_CHANNEL:
        return channel
    encoded = channel.encode()
    return channel if len(encoded) <= MAX_CHANNEL else f"blake2b:{blake2b(encoded, digest_size=32).hexdigest()}"


def write_versions(versions: Mapping[str, str]) -> str:
    """Return the versions of channels as they are stored."""
    stored = {index_name(channel): version for channel, version in versions.items()}
    long = {name: channel for channel in versions if (name := index_name(channel)) != channel}
    if long:
        stored[_LONG] = json.dumps(long, ensure_ascii=False)
    return json.dumps(stored, ensure_ascii=False)


def read_versions(text: str) -> dict[str, tuple[str, str]]:
    """Return for each channel what stands for it in the index, and its version."""
    stored: dict[str, str] = json.loads(text)
    long: dict[str, str] = json.loads(stored.pop(_LONG, "{}"))
    return {long.get(name, name): (name, version) for name, version in stored.items()}
