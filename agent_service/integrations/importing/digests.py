"""Digests of items, by which what the target holds is compared with what the source said."""

from hashlib import blake2b
from typing import Final

__all__ = ["Digests", "digest_of"]

_SIZE: Final = 16


def digest_of(*parts: str | bytes) -> bytes:
    """Return the digest of an item that consists of these parts."""
    digest = blake2b(digest_size=_SIZE)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.digest()


class Digests:
    """The digests of a sequence of items, 16 bytes each."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def __len__(self) -> int:
        return len(self._bytes) // _SIZE

    def __getitem__(self, index: int) -> bytes:
        return bytes(self._bytes[index * _SIZE : (index + 1) * _SIZE])

    def append(self, digest: bytes) -> None:
        """Add the digest of the next item."""
        self._bytes += digest
