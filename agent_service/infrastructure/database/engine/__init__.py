"""One database: its engine, its sessions, its schema, and a replica before it."""

from agent_service.infrastructure.database.engine.manager import DatabaseManager

__all__ = ["DatabaseManager"]
