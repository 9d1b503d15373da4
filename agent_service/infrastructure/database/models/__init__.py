"""The package's tables."""

from agent_service.infrastructure.database.models.base import Base
from agent_service.infrastructure.database.models.checkpoint import (
    Checkpoint,
    CheckpointBlob,
    CheckpointShare,
    CheckpointThread,
    CheckpointWrite,
)
from agent_service.infrastructure.database.models.context import ContextEntry
from agent_service.infrastructure.database.models.fleet import FleetRow
from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.outbox import OutboxRow
from agent_service.infrastructure.database.models.session import Session, SessionStatus

__all__ = [
    "Base",
    "Checkpoint",
    "CheckpointBlob",
    "CheckpointShare",
    "CheckpointThread",
    "CheckpointWrite",
    "ContextEntry",
    "FleetRow",
    "OutboxRow",
    "Session",
    "SessionMessage",
    "SessionStatus",
]
