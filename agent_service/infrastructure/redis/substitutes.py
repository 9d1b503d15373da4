"""Other forms of commands, for a server that refuses the usual one: by version, configuration or access rule."""

import logging
from typing import Final

from redis.exceptions import NoScriptError, ResponseError

from agent_service.infrastructure.redis.denials import command_name, denial
from agent_service.infrastructure.redis.scripts import with_source
from agent_service.infrastructure.redis.transport.base import Command

__all__ = ["Substitutes"]

logger = logging.getLogger("agent_service.redis")

_LOSSES: Final = {
    "UNLINK": "DEL is used: the server stops for as long as it frees large values",
    "EVALSHA": "EVAL is used: scripts are sent whole each time",
    "SCAN": "keys cannot be listed, and an invalidation by pattern empties the whole namespace",
    "CLIENT INFO": "a command that was given up for want of an answer may still run after an outage",
    "CLIENT KILL": "a command that was given up for want of an answer may still run after an outage",
    "INFO": "health checks cannot tell version and mode",
    "PING": "health checks cannot measure a PING",
}
"""What is lost without a command that can be done without."""


class Substitutes:
    """What one client has learned about the commands that its server permits."""

    def __init__(self) -> None:
        self.losses: dict[str, str] = {}
        """For each command that is not used any more, a sentence that says what is lost."""

    def lose(self, name: str) -> bool:
        """Stop using a command, and log that once; return False for a command that is needed."""
        if name not in _LOSSES:
            return False
        if name not in self.losses:
            self.losses[name] = f"Redis denies this user {name}, so {_LOSSES[name]}"
            logger.warning("%s", self.losses[name])
        return True

    def forget(self) -> None:
        """Try all commands again."""
        self.losses.clear()

    def before(self, command: Command) -> Command:
        """Return the form in which to send a command."""
        name = command_name(command[:1])
        if name not in self.losses:
            return command
        return ("DEL", *command[1:]) if name == "UNLINK" else with_source(command) if name == "EVALSHA" else command

    def after(self, command: Command, reply: object) -> Command | None:
        """Return the form in which to send a command again after this reply; None: the reply is final."""
        if not isinstance(reply, ResponseError):
            return None
        if isinstance(reply, NoScriptError):
            return with_source(command)
        name = command_name(command[:1])
        if name not in ("UNLINK", "EVALSHA"):
            return None
        denied = denial(reply, command)
        if denied is None or denied.lacks != "command" or denied.command != name:
            return None
        return ("DEL", *command[1:]) if name == "UNLINK" else with_source(command)

    def accept(self, command: Command, first: object, second: object) -> bool:
        """Learn from the reply to the form that :meth:`after` returned; False where the server denies that form, too.

        :param first: the reply to the usual form.
        """
        if isinstance(first, NoScriptError):
            return True
        denied = isinstance(second, ResponseError) and denial(second, ()) is not None
        return not denied and self.lose(command_name(command[:1]))
