"""The alert rules: well formed, about figures that there are, each with its page."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.counters import COUNTED

ROOT = Path(__file__).resolve().parents[2]
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((ROOT / "docker" / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
MONITORING = (ROOT / "docs" / "monitoring.md").read_text()
INCIDENTS = (ROOT / "docs" / "incidents.md").read_text()
THEIRS = {"up", "kube_pod_container_resource_limits"}


def told() -> set[str]:
    """The names of all figures, as the pages list them."""
    return set(re.findall(r"^\| `(spear_\w+)` \|", MONITORING, flags=re.MULTILINE))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_is_complete_and_about_what_there_is(rule: dict[str, Any]) -> None:
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert re.fullmatch(r"\d+[smh]", rule.get("for", "1m"))
    named = set(re.findall(r"\b(spear_\w+|kube_\w+|up)\b(?![\"=])", rule["expr"]))
    assert named <= told() | THEIRS
    assert rule["expr"].count("(") == rule["expr"].count(")")
    assert f"| `{rule['alert']}` |" in MONITORING
    anchor = rule["annotations"]["runbook_url"].partition("#")[2]
    headings = re.findall(r"^## (.+)$", INCIDENTS, flags=re.MULTILINE)
    assert anchor in {heading.lower().replace(" ", "-") for heading in headings}


def test_the_page_lists_no_rule_that_is_not() -> None:
    assert set(re.findall(r"^\| `(Spear\w+)` \|", MONITORING, flags=re.MULTILINE)) == {rule["alert"] for rule in RULES}


def test_the_page_lists_every_figure_and_no_other() -> None:
    from app.api import metrics
    from worker import metrics as own

    sources = "".join(Path(module.__file__ or "").read_text() for module in (metrics, own))
    gauges = set(re.findall(r'GaugeMetricFamily\(\s*"(spear_\w+)"', sources))
    histograms = set(re.findall(r'HistogramMetricFamily\(\s*"(spear_\w+)"', sources))
    counters = set(re.findall(r'(?:CounterMetricFamily|_labelled)\(\s*"(spear_\w+)"', sources)) | set(COUNTED)
    assert told() == gauges | histograms | {f"{name}_total" for name in counters}
