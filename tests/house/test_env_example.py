"""The example of a .env file and the settings agree, in both directions."""

from pathlib import Path

import pytest

from agent_service.core.settings import Settings, get_settings
from tests.house.env_example import render

ROOT = Path(__file__).parents[2]


def test_the_example_lists_every_setting_with_its_default_and_description_and_nothing_else():
    written = (ROOT / ".env.example").read_text(encoding="utf-8")

    assert written == render(), "run: python -m tests.house.env_example > .env.example"


def test_every_setting_is_described():
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_a_copy_of_the_example_changes_no_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    defaults = get_settings()
    (tmp_path / ".env").write_text(render(), encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    assert Settings() == defaults
