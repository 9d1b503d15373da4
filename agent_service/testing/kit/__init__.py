"""What the pytest plugin is made of: isolation, databases, a Redis with faults, one clock, what was invalidated."""

from agent_service.testing.kit.assertions import assert_cached, assert_not_called_again
from agent_service.testing.kit.clock import ServiceClock
from agent_service.testing.kit.databases import ServiceDatabase
from agent_service.testing.kit.invalidations import Invalidation, Invalidations
from agent_service.testing.kit.isolation import ServiceKit
from agent_service.testing.kit.redis import ServiceRedis

__all__ = [
    "Invalidation",
    "Invalidations",
    "ServiceClock",
    "ServiceDatabase",
    "ServiceKit",
    "ServiceRedis",
    "assert_cached",
    "assert_not_called_again",
]
