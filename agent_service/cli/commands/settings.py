"""``agent-service settings``: the settings in force, secrets masked."""

from argparse import Namespace
from typing import Any

from pydantic import SecretStr

from agent_service.cli.console import Console
from agent_service.cli.grammar import add_command
from agent_service.core.settings import get_settings
from agent_service.core.urls.mask import mask_url

__all__ = ["register"]


def register(commands: Any) -> None:
    """Add ``settings``."""
    add_command(commands, "settings", _show, "show every setting, secrets masked", "settings")


def _show(_arguments: Namespace, console: Console) -> int:
    """Print every setting as the line it would be in .env."""
    values = {name.upper(): _masked(value) for name, value in get_settings()}
    if console.as_json:
        console.result(values)
    for name, value in values.items():
        console.say(f"{name}={'' if value is None else value}")
    return 0


def _masked(value: object) -> object:
    return mask_url(value.get_secret_value()) if isinstance(value, SecretStr) else value
