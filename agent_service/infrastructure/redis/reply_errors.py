"""Error replies of a pipeline: which of them the caller gets as replies, and which one is raised."""

from collections.abc import Sequence
from typing import Any

from agent_service.infrastructure.redis.denials import denial
from agent_service.infrastructure.redis.operation import Operation
from agent_service.infrastructure.redis.transport.base import Command

__all__ = ["give_or_raise"]


def give_or_raise(
    operation: Operation, commands: Sequence[Command], replies: list[Any], *, wrong_types: bool, denied: bool
) -> None:
    """Replace the error replies that the caller wants as replies; raise the first of the others.

    :param wrong_types: None replaces the error of a command that met another type of value.
    :param denied: our error replaces that of a command that the server denies.
    """
    for place, (command, reply) in enumerate(zip(commands, replies, strict=True)):
        if not isinstance(reply, Exception):
            continue
        if denied and (error := denial(reply, command)) is not None:
            replies[place] = error
        elif wrong_types and str(reply).startswith("WRONGTYPE"):
            replies[place] = None
        else:
            operation.command = command
            reply.args = (f"{reply} (command {place + 1} of {len(replies)} of the pipeline)",)
            raise reply
