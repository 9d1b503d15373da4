"""What lies in a connection and was not read or sent yet, because the event loop was busy: no fault of the server."""

import asyncio
import select
from typing import Any

__all__ = ["has_arrived", "is_ready"]


def has_arrived(connection: Any) -> bool:
    """Whether a redis-py connection holds something to read, or could go on with what it sends. No I/O, no waiting."""
    reader, writer = getattr(connection, "_reader", None), getattr(connection, "_writer", None)
    if reader is None or writer is None:
        return False
    return bool(getattr(reader, "_buffer", b"")) or is_ready(writer.transport)


def is_ready(transport: asyncio.Transport) -> bool:
    """Whether the socket below a transport holds bytes to read, or has room for those that wait to be sent."""
    socket = transport.get_extra_info("socket")
    if transport.is_closing() or socket is None or socket.fileno() < 0:
        return False
    events = select.POLLIN | (select.POLLOUT if transport.get_write_buffer_size() else 0)
    look = select.poll()
    look.register(socket.fileno(), events)
    return bool(look.poll(0))
