"""Databases of other libraries, which are read and never written to."""

from agent_service.infrastructure.database.foreign.reading import Reading, Row
from agent_service.infrastructure.database.foreign.source import SourceDatabase
from agent_service.infrastructure.database.foreign.tables import SourceTable

__all__ = ["Reading", "Row", "SourceDatabase", "SourceTable"]
