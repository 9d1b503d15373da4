"""The dashboard and the alerts: their PromQL is valid, and every metric in them exists."""

import json
import re
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from agent_service.integrations.metrics.catalogue import FAMILIES
from tests.servers.prometheus import promtool

FOLDER = Path(str(files("agent_service.integrations.prometheus")))
DASHBOARD = json.loads((FOLDER / "grafana.json").read_text(encoding="utf-8"))
ALERTS = yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
SHOWN = [target["expr"] for panel in PANELS for target in panel["targets"]]
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]


def exposed() -> dict[str, tuple[str, ...]]:
    """Every name of a series, and its labels."""
    found: dict[str, tuple[str, ...]] = {"agent_service_build_info": ("version",)}
    for family in FAMILIES.values():
        if family.kind == "histogram":
            for suffix in ("bucket", "sum", "count"):
                found[f"{family.exposed}_{suffix}"] = (*family.labels, *(("le",) if suffix == "bucket" else ()))
        else:
            found[family.exposed] = family.labels
    return found


@pytest.mark.parametrize("expression", [*SHOWN, *(rule["expr"] for rule in RULES)])
def test_every_metric_and_label_in_an_expression_exists(expression: str):
    known = exposed()
    names = re.findall(r"\bagent_service_\w+", expression)
    labels = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", expression)
    labels += [
        each.strip() for group in re.findall(r"\b(?:by|without) \(([^)]*)\)", expression) for each in group.split(",")
    ]
    allowed = {"job", "instance", *(label for name in names for label in known.get(name, ()))}

    assert names
    assert set(names) <= known.keys()
    assert set(labels) <= allowed


def test_promtool_accepts_the_alerts():
    assert "SUCCESS" in promtool("check", "rules", str(FOLDER / "alerts.yml"))


def test_promtool_accepts_every_expression_of_the_dashboard(tmp_path: Path):
    rules = [
        {"record": f"panel:{number}", "expr": each.replace("$__rate_interval", "5m").replace("$job", ".*")}
        for number, each in enumerate(SHOWN)
    ]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8")

    assert f"{len(SHOWN)} rules found" in promtool("check", "rules", str(file))


def test_an_expression_that_cannot_be_parsed_would_be_noticed(tmp_path: Path):
    file = tmp_path / "rules.yml"
    rule = {"record": "a:b", "expr": "sum(agent_service_cache_sets_total"}
    file.write_text(yaml.safe_dump({"groups": [{"name": "wrong", "rules": [rule]}]}), encoding="utf-8")

    with pytest.raises(AssertionError, match="parse"):
        promtool("check", "rules", str(file))


def test_every_alert_says_how_bad_it_is_and_what_happened():
    assert len({rule["alert"] for rule in RULES}) == len(RULES) >= 10
    for rule in RULES:
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"]["summary"]


def test_every_panel_has_a_title_of_its_own_and_overlaps_none():
    titles = [panel["title"] for panel in PANELS]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]

    assert len(set(titles)) == len(titles)
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_alerts_fire_when_they_should_and_only_then():
    file = Path(__file__).with_name("alerts_test.yml")
    cases = [case for each in yaml.safe_load(file.read_text())["tests"] for case in each["alert_rule_test"]]

    said = promtool("test", "rules", str(file))

    assert "SUCCESS" in said
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == {rule["alert"] for rule in RULES}
