"""What every process of a service measures, readable from any one of them."""

from agent_service.integrations.fleet.publish import publish_fleet, read_fleet
from agent_service.integrations.metrics.snapshot import ProcessSnapshot

__all__ = ["ProcessSnapshot", "publish_fleet", "read_fleet"]
