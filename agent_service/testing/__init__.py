"""For tests of services: a clock that tests move, and contract test classes for backends of your own."""

from agent_service.testing.clock import FakeClock

__all__ = ["FakeClock"]
