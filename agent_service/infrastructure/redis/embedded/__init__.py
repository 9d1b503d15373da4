"""A private Redis for this process, its children, and all that name the same folder."""

from agent_service.infrastructure.redis.embedded.binary import find_server
from agent_service.infrastructure.redis.embedded.place import EMBEDDED_FOLDER, HOW_TO_GET_ONE

__all__ = ["EMBEDDED_FOLDER", "HOW_TO_GET_ONE", "find_server"]
