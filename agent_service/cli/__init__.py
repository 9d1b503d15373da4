"""The ``agent-service`` command."""

from agent_service.cli.command import main

__all__ = ["main"]
