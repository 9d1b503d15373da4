"""Stored bytes as a whole. The package never needs them so: it reads the head first, and the payload of a hit only."""

from collections.abc import Mapping
from typing import NamedTuple

from agent_service.core.envelope import NO_TAGS, pack_payload, pack_tags, read_head, read_payload, seal


class Envelope(NamedTuple):
    """A payload and what is known about it."""

    payload: bytes
    tagged: bool = False
    created_at: float | None = None
    stale_at: float | None = None
    tags: Mapping[str, bytes] = NO_TAGS
    raised: bool = False


def pack(envelope: Envelope, *, compress_above: int | None = None) -> bytes:
    payload, tagged, created_at, stale_at, tags, raised = envelope
    packed = pack_payload(payload, tagged=tagged, compress_above=compress_above)
    return seal(packed, created_at=created_at, stale_at=stale_at, tags=pack_tags(tags), raised=raised)


def unpack(data: bytes) -> Envelope:
    head = read_head(data)
    payload, tagged, _ = read_payload(data, head.flags, head.end)
    return Envelope(payload, tagged, head.created_at, head.stale_at, head.tags, head.raised)
