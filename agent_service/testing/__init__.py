"""For tests of services: a clock that tests move, contract test classes for backends of your own, and the fixtures of
``agent_service.testing.plugin``.
"""

from agent_service.testing.clock import FakeClock

__all__ = ["FakeClock"]
