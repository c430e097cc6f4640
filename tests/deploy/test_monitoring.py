"""Alerts and the dashboard: they parse, they fire when they should, and everything that they name exists."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import promql_parser as promql
import pytest
import yaml

from deocc_engines import errors
from deocc_service.calls import METHODS, REFUSALS
from deocc_service.metrics import METRICS, Kind
from tests.deploy.conftest import DEPLOY

PROMETHEUS = DEPLOY / "prometheus"
RULES = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "deocc.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
OF_SCRAPING = {"instance", "job", "replica", "le", "__name__"}

LABELS = {metric.name: set(metric.labels) for metric in METRICS if metric.kind is not Kind.HISTOGRAM} | {
    f"{metric.name}_{part}": set(metric.labels)
    for metric in METRICS
    if metric.kind is Kind.HISTOGRAM
    for part in ("bucket", "sum", "count")
}
REASONS = {
    value.reason for value in vars(errors).values() if isinstance(value, type) and issubclass(value, errors.DeoccError)
}
VALUES = {
    "code": REASONS | {"OK", "500", "503"},
    "reason": REFUSALS,
    "method": set(METHODS.values()),
    "protocol": {"grpc", "http"},
}


def expressions() -> Iterator[Any]:
    for rule in RULES:
        yield pytest.param(rule["expr"], id=rule["alert"])
    for panel in PANELS:
        for target in panel["targets"]:
            yield pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")


def parsed(expression: str) -> Any:
    return promql.parse(expression.replace("$__rate_interval", "1m"))


def walk(node: Any) -> Iterator[Any]:
    yield node
    for name in ("expr", "lhs", "rhs", "vector_selector", "vs", "args", "param"):
        child = getattr(node, name, None)
        for one in child if isinstance(child, list) else [child]:
            if isinstance(one, promql.Expr) or type(one).__name__ == "VectorSelector":
                yield from walk(one)


@pytest.mark.parametrize("expression", list(expressions()))
def test_what_an_expression_names_is_exported(expression: str) -> None:
    selectors = [node for node in walk(parsed(expression)) if type(node).__name__ == "VectorSelector"]
    assert {selector.name for selector in selectors} == set(re.findall(r"deocc_\w+", expression))
    for selector in selectors:
        assert selector.name in LABELS
        for matcher in selector.matchers.matchers:
            assert matcher.name in LABELS[selector.name], matcher
            for value in matcher.value.split("|"):
                assert any(re.fullmatch(value, known) for known in VALUES[matcher.name]), matcher
    for node in walk(parsed(expression)):
        if isinstance(node, promql.AggregateExpr) and node.modifier is not None:
            known = set().union(*(LABELS[selector.name] for selector in selectors)) | OF_SCRAPING
            assert set(node.modifier.labels) <= known


def test_every_metric_is_on_the_dashboard() -> None:
    shown = " ".join(target["expr"] for panel in PANELS for target in panel["targets"])
    missing = {metric.name for metric in METRICS if metric.name not in shown}
    assert not missing


def test_legends_name_labels_that_the_expression_leaves() -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            kept = {name for by in re.findall(r"by \(([^)]*)\)", target["expr"]) for name in re.split(r",\s*", by)}
            named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            assert named <= (kept or OF_SCRAPING), panel["title"]


def test_panels_lie_beside_each_other() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_panels_ask_the_chosen_data_source() -> None:
    (variable,) = DASHBOARD["templating"]["list"]
    assert variable["type"] == "datasource"
    for panel in PANELS:
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])


def test_prometheus_takes_its_configuration(promtool: str) -> None:
    done = subprocess.run([promtool, "check", "config", PROMETHEUS / "prometheus.yml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_fire_when_they_should(promtool: str) -> None:
    done = subprocess.run(
        [promtool, "test", "rules", "alerts_test.yml"], cwd=PROMETHEUS, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case_in_which_it_fires() -> None:
    cases = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
    fired = {case["alertname"] for test in cases for case in test["alert_rule_test"] if case.get("exp_alerts")}
    assert fired == {rule["alert"] for rule in RULES}
