"""What .env.example must say. Write it with ``python -m tests.house.env_example > .env.example``."""

import textwrap
from collections.abc import Iterator

from pydantic import SecretStr

from agent_service.core.settings import Settings

HEAD = """\
# Every setting, with its default. Copy this file to .env and change what you need; the environment overrides it.
"""


def render() -> str:
    """One paragraph a setting: its description as a comment, then its default."""
    return HEAD + "".join(_paragraphs())


def _paragraphs() -> Iterator[str]:
    for name, field in Settings.model_fields.items():
        comment = textwrap.fill(
            field.description or "", width=110, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
        )
        yield f"\n{comment}\n{name.upper()}={_text(field.default)}\n"


def _text(default: object) -> str:
    if default is None:
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    return default.get_secret_value() if isinstance(default, SecretStr) else str(default)


if __name__ == "__main__":
    print(render(), end="")  # noqa: T201
