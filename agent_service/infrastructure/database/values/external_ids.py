"""An external id made of several parts, such as application, user and conversation."""

from hashlib import blake2b
from typing import Final
from urllib.parse import quote

from agent_service.core.errors import SessionValueError
from agent_service.infrastructure.database.values.validation import MAX_IDENTIFIER

__all__ = ["external_id_of"]

_SEPARATOR: Final = "/"
_DIGEST: Final = "#"
"""How the id of long parts begins; no other does, because a part's own # is written %23."""


def external_id_of(*parts: str) -> str:
    """Return one ``external_id`` for parts, a different one for every different list of parts.

    ::

        external_id_of("support", "ada", "chat 1")  # "support/ada/chat%201"

    Each part is percent-encoded, so no part can hold the separator. Where that exceeds 255 characters, the id is
    a 256-bit digest of it. The same parts give the same id in every process and version.

    :param parts: at least one text; an empty one counts.
    :raises SessionValueError: there is no part, or one is no text or holds a lone surrogate.
    """
    if not parts:
        raise SessionValueError("external_id_of needs at least one part, such as an application, a user and an id")
    encoded = _SEPARATOR.join(_encoded(part, index) for index, part in enumerate(parts))
    if 0 < len(encoded) <= MAX_IDENTIFIER:
        return encoded
    return _DIGEST + blake2b(encoded.encode(), digest_size=32).hexdigest()


def _encoded(part: str, index: int) -> str:
    if not isinstance(part, str):
        raise SessionValueError(f"parts[{index}] must be a string, not {type(part).__name__}: {part!r:.80}")
    try:
        return quote(part, safe="")
    except UnicodeEncodeError:
        raise SessionValueError(f"parts[{index}] holds a lone surrogate, which is no text: {part!a:.80}") from None
