"""The durable log of conversations; the only room that imports sqlalchemy."""

from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.connection import close_database, get_database, get_session
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.infrastructure.database.maintenance.cleanup import cleanup_once, run_cleanup
from agent_service.infrastructure.database.maintenance.counted import CleanupCounts, CleanupMetrics
from agent_service.infrastructure.database.maintenance.erasure import erase_user, rewrite_file
from agent_service.infrastructure.database.naming.engines import name_tables

__all__ = [
    "CleanupCounts",
    "CleanupMetrics",
    "DatabaseManager",
    "SessionWriter",
    "cleanup_once",
    "close_database",
    "erase_user",
    "get_database",
    "get_session",
    "name_tables",
    "rewrite_file",
    "run_cleanup",
]
