"""What the chart gives Prometheus and Grafana, where it is asked for: a real API server takes it, and it leads to the numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import yaml

from tests.cluster.control_plane import ControlPlane
from tests.cluster.monitoring import GROUP, definitions
from tests.integration.chart.helm import CHART, HelmFailed, container, helm, manifests, only, render, set_values
from tests.integration.chart.site import Site

ALL = [f"metrics.{what}.enabled=true" for what in ("serviceMonitor", "prometheusRule", "dashboard")]
LABELS = ["metrics.serviceMonitor.labels.release=prometheus", "metrics.prometheusRule.labels.release=prometheus"]
KINDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture(scope="module")
def monitored(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """A cluster that knows the kinds of Prometheus' operator."""
    names = [kind["metadata"]["name"] for kind in definitions()]
    for kind in definitions():
        control_plane.api.post(KINDS, kind)
    control_plane.kubectl("wait", "crd", *names, "--for=condition=Established")
    yield control_plane
    control_plane.kubectl("delete", "crd", *names)


@pytest.mark.parametrize(
    "values", [ALL, [*ALL, *LABELS, "nameOverride=tuner", "metrics.serviceMonitor.interval=1m30s"]]
)
def test_the_api_server_accepts_what_prometheus_and_grafana_get(
    monitored: ControlPlane, namespace: str, values: list[str]
) -> None:
    rendered = helm("template", "my.release", str(CHART), f"--namespace={namespace}", *set_values(values))
    said = monitored.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", input=rendered)
    assert len(said.splitlines()) == len(manifests(rendered))


def test_a_cluster_without_prometheus_refuses_it_and_says_which_kind_is_missing(site: Site) -> None:
    missing = f'no matches for kind "(ServiceMonitor|PrometheusRule)" in version "{GROUP}/v1"'
    with pytest.raises(HelmFailed, match=missing):
        site.install("release", site.here, *set_values(ALL))
    assert site.cluster.kubectl("get", "deployments", f"--namespace={site.here}", "-o", "name") == ""


def test_nothing_of_it_is_there_unless_asked_for() -> None:
    kinds = [manifest["kind"] for manifest in render([])]
    assert not {"ServiceMonitor", "PrometheusRule", "ConfigMap"} & set(kinds)
    assert kinds.count("Service") == 1  # of progress


def test_a_service_monitor_leads_to_the_operators_numbers_and_nowhere_else() -> None:
    found = render([ALL[0], *LABELS])
    monitor = only(found, "ServiceMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"]
    [service] = [m for m in found if m["kind"] == "Service" and wanted.items() <= m["metadata"]["labels"].items()]
    [endpoint] = monitor["spec"]["endpoints"]
    [port] = service["spec"]["ports"]
    assert endpoint["port"] == port["name"]
    assert port["targetPort"] in {p["name"] for p in container(found)["ports"]}
    labels = only(found, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert service["metadata"]["namespace"] == monitor["metadata"]["namespace"]


def test_alerts_reach_prometheus_as_they_are_written_in_a_file_that_it_takes_by_itself_too() -> None:
    written = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())
    assert only(render([ALL[1]]), "PrometheusRule")["spec"] == written
    [group] = written["groups"]  # a rules file is groups, each of a name and rules
    assert written.keys() == {"groups"} and group.keys() == {"name", "rules"}
    assert all(rule["alert"] and rule["expr"] for rule in group["rules"])


def test_the_dashboard_is_where_grafanas_sidecar_looks() -> None:
    config = only(render([ALL[2]]), "ConfigMap")
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(config["data"]["finetunejobs.json"])["title"] == "FineTuneJobs"
