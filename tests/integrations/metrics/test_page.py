"""The page about metrics names all of them, and every alert."""

from pathlib import Path

import yaml

from tests.integrations.metrics.table import table

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
ALERTS = ROOT / "agent_service" / "integrations" / "prometheus" / "alerts.yml"


def test_the_table_is_the_catalogue():
    """Print the table with ``python -m tests.integrations.metrics.table``."""
    assert table() in PAGE


def test_every_alert_is_explained():
    rules = [rule for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]

    assert [rule["alert"] for rule in rules if f"| `{rule['alert']}` |" not in PAGE] == []
