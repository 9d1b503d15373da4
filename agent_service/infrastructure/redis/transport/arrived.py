"""Whether a connection holds bytes that this process has not read or sent yet, because its event loop was busy.

A deadline that passes then says nothing about the server.
"""

import asyncio
import select
from typing import Any

__all__ = ["has_arrived", "is_ready"]


def has_arrived(connection: Any) -> bool:
    """Return whether a redis-py connection has something to read, or could go on sending. No I/O, no waiting."""
    reader, writer = getattr(connection, "_reader", None), getattr(connection, "_writer", None)
    if reader is None or writer is None:
        return False
    return bool(getattr(reader, "_buffer", b"")) or is_ready(writer.transport)


def is_ready(transport: asyncio.Transport) -> bool:
    """Return whether the socket below a transport has bytes to read, or room for those that wait to be sent."""
    socket = transport.get_extra_info("socket")
    if transport.is_closing() or socket is None or socket.fileno() < 0:
        return False
    events = select.POLLIN | (select.POLLOUT if transport.get_write_buffer_size() else 0)
    poll = select.poll()
    poll.register(socket.fileno(), events)
    return bool(poll.poll(0))
