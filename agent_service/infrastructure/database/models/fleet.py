"""What one process of a service measured lately."""

from datetime import datetime

from sqlalchemy import Text
from sqlalchemy.orm import Mapped, mapped_column

from agent_service.infrastructure.database.models.base import Base
from agent_service.infrastructure.database.values.types import UtcDateTime

__all__ = ["FleetRow"]


class FleetRow(Base):
    """One process until ``expires_at``, by the clock of the database. ``snapshot`` is JSON that only readers know."""

    __tablename__ = "agent_service_fleet"

    process: Mapped[str] = mapped_column(Text, primary_key=True)
    snapshot: Mapped[str] = mapped_column(Text)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
