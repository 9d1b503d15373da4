"""Compiling patterns beside an event loop."""

import asyncio
from collections.abc import Iterable
from typing import Final

from agent_service.core.globs import Globs, compile_globs

__all__ = ["compiled"]

_AT_ONCE: Final = 4096
"""Most characters of patterns that are compiled without leaving the event loop: a few milliseconds."""


async def compiled(patterns: Iterable[str]) -> Globs | None:
    """Return the patterns as one, or None: see :func:`~agent_service.core.globs.compile_globs`."""
    wanted = list(patterns)
    if len(wanted) == 1 or sum(map(len, wanted)) <= _AT_ONCE:
        return compile_globs(wanted)
    return await asyncio.to_thread(compile_globs, wanted)
