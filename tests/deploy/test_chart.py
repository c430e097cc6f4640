"""The chart: what it renders for several sets of values is valid, and the service and Ray take what is in it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from deocc_engines.limits import Limits
from deocc_service.settings import Settings
from tests.deploy.conftest import CHART, DEPLOY, Render

KUBERNETES = "1.33"
RAYSERVICE = json.loads(Path(__file__).with_name("rayservice.schema.json").read_text())
VALUES_SCHEMA = json.loads((CHART / "values.schema.json").read_text())
MONITORING = {"PodMonitor", "PrometheusRule"}  # of an operator whose schema is not here; looked at one by one

EVERYTHING: dict[str, Any] = {
    "imagePullSecrets": [{"name": "registry"}],
    "engine": {
        "name": "deocc-anything",
        "volume": {"create": True, "storageClassName": "shared"},
        "job": {
            "enabled": True,
            "pull": "deocc-anything",
            "acceptLicence": True,
            "compile": "trt",
            "hubTokenSecret": "hub",
            "nodeSelector": {"card": "h100"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        },
    },
    "settings": {"queue": 64, "image_ttl": 600, "limits": {"max_samples": 4, "max_bytes": 1_000_000}},
    "edge": {"replicas": 2},
    "images": {"existingClaim": "images"},
    "segmenter": {"gpus": 0.25, "maxReplicas": 2},
    "completer": {"gpus": 0.75, "maxReplicas": 4},
    "head": {"nodeSelector": {"pool": "cpu"}, "tolerations": [{"operator": "Exists"}]},
    "workers": {
        "maxReplicas": 4,
        "resources": {"limits": {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": 1}},
        "nodeSelector": {"card": "h100"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "podAnnotations": {"a": "b"},
    },
    "tls": {"secretName": "tls"},
    "apiKeys": {"secretName": "keys"},
    "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True},
    "grafanaDashboard": {"enabled": True},
    "networkPolicy": {
        "enabled": True,
        "clients": [{"namespaceSelector": {}}],
        "monitoring": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
    },
}
DOCUMENTED = re.search(r"```yaml\n(.*?)```", (DEPLOY.parent / "docs" / "deploying.md").read_text(), re.DOTALL)
assert DOCUMENTED is not None
CASES = [
    pytest.param({}, id="default"),
    pytest.param({"fused": True}, id="fused"),
    pytest.param(EVERYTHING, id="all"),
    pytest.param(yaml.safe_load(DOCUMENTED[1]), id="documented"),
]


def one(documents: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [document for document in documents if document["kind"] == kind]
    return found


def templates(rayservice: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = rayservice["spec"]["rayClusterConfig"]
    return [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def pods(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    specs = [template["spec"] for template in templates(one(documents, "RayService"))]
    return specs + [document["spec"]["template"]["spec"] for document in documents if document["kind"] == "Job"]


def settings(container: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Settings:
    for entry in container["env"]:
        monkeypatch.setenv(entry["name"], entry["value"])
    return Settings.read()


def test_chart_passes_lint(helm: str) -> None:
    done = subprocess.run([helm, "lint", "--strict", CHART], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("values", CASES)
def test_manifests_are_valid(render: Render, values: dict[str, Any]) -> None:
    for document in render(values):
        if document["kind"] == "RayService":
            jsonschema.validate(document, RAYSERVICE)
            for template in templates(document):
                kubernetes_validate.validate({"apiVersion": "v1", "kind": "Pod", **template}, KUBERNETES, strict=True)
        elif document["kind"] not in MONITORING:
            kubernetes_validate.validate(document, KUBERNETES, strict=True)


@pytest.mark.parametrize("values", CASES)
def test_pods_are_locked_down_and_bounded(render: Render, values: dict[str, Any]) -> None:
    for pod in pods(render(values)):
        assert pod["securityContext"]["runAsNonRoot"]
        # A service named deocc-… would come as variables DEOCC_…, which are refused as unknown settings.
        assert pod["enableServiceLinks"] is False
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["readOnlyRootFilesystem"]
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in container["resources"]["limits"]
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


@pytest.mark.parametrize("values", CASES)
def test_deployments_are_those_of_the_application(render: Render, values: dict[str, Any]) -> None:
    config = yaml.safe_load(one(render(values), "RayService")["spec"]["serveConfigV2"])
    (application,) = config["applications"]
    names = [deployment["name"] for deployment in application["deployments"]]
    assert names == (["Edge", "Deoccluder"] if values.get("fused") else ["Edge", "Segmenter", "Completer"])


@pytest.mark.parametrize("values", CASES)
def test_ray_takes_the_configuration_of_serve(render: Render, values: dict[str, Any]) -> None:
    config = yaml.safe_load(one(render(values), "RayService")["spec"]["serveConfigV2"])
    in_ray("import json, sys; ServeDeploySchema.model_validate(json.loads(sys.argv[1]))", json.dumps(config))


def test_what_serve_imports_exists(render: Render) -> None:
    config = yaml.safe_load(one(render({}), "RayService")["spec"]["serveConfigV2"])
    (hook,) = config["grpc_options"]["grpc_servicer_functions"]
    application = config["applications"][0]["import_path"]
    check = "import pkgutil, sys; assert all(callable(pkgutil.resolve_name(name)) for name in sys.argv[1:])"
    in_ray(check, application, ":".join(hook.rsplit(".", 1)))


def in_ray(program: str, *arguments: str) -> None:
    """In a process of its own: hosts that other tests start must be the first to import Ray."""
    command = [sys.executable, "-c", "from ray.serve.schema import ServeDeploySchema; " + program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("values", CASES)
def test_service_takes_its_settings(render: Render, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    rayservice = one(render(values), "RayService")
    config = yaml.safe_load(rayservice["spec"]["serveConfigV2"])
    head, worker = [template["spec"]["containers"][0] for template in templates(rayservice)]
    assert head["env"] == worker["env"]
    chosen = settings(worker, monkeypatch)
    assert chosen.http_port == config["http_options"]["port"]
    ports = {port["name"]: port["containerPort"] for port in worker["ports"]}
    assert (ports["serve"], ports["serve-grpc"]) == (chosen.http_port, chosen.grpc_port)
    assert (config["grpc_options"]["port"] == chosen.grpc_port) is not chosen.tls
    assert config["http_options"].get("ssl_keyfile") == (str(chosen.tls_key) if chosen.tls else None)
    (edge, *_) = config["applications"][0]["deployments"]
    assert edge["num_replicas"] == chosen.edges
    environment = {entry["name"]: entry["value"] for entry in worker["env"]}
    assert int(environment["RAY_SERVE_GRPC_MAX_MESSAGE_SIZE"]) == 2 * chosen.max_body
    _, pod = templates(rayservice)
    assert pod["spec"]["terminationGracePeriodSeconds"] > chosen.drain_seconds
    for named in (chosen.tls_key, chosen.api_keys_file, chosen.image_dir):
        assert named is None or any(named.is_relative_to(mount["mountPath"]) for mount in worker["volumeMounts"])


def test_probes_follow_tls(render: Render) -> None:
    for secret, scheme in (("", "HTTP"), ("tls", "HTTPS")):
        _, worker = templates(one(render({"tls": {"secretName": secret}}), "RayService"))
        assert worker["spec"]["containers"][0]["readinessProbe"]["httpGet"]["scheme"] == scheme


def test_image_follows_the_gpus(render: Render) -> None:
    for values, tag in (({}, "0.1.0-cpu"), (EVERYTHING, "0.1.0-gpu"), ({"image": {"tag": "mine"}}, "mine")):
        for template in templates(one(render(values), "RayService")):
            assert template["spec"]["containers"][0]["image"] == f"deocc:{tag}"


def test_head_waits_for_what_the_job_makes(render: Render) -> None:
    documents = render(EVERYTHING)
    job = one(documents, "Job")["spec"]["template"]["spec"]
    assert [step["args"][:2] for step in job["initContainers"]] == [
        ["pull", "deocc-anything"],
        ["compile", "deocc-anything"],
    ]
    (_, mark) = job["containers"][0]["command"]
    head, _ = templates(one(documents, "RayService"))
    assert mark in head["spec"]["initContainers"][0]["command"][-1]
    # Something else is wanted: another job, and another thing to wait for.
    other = EVERYTHING | {"engine": {**EVERYTHING["engine"], "job": EVERYTHING["engine"]["job"] | {"compile": ""}}}
    assert one(render(other), "Job")["metadata"]["name"] != one(documents, "Job")["metadata"]["name"]


def test_monitor_strips_the_prefix_of_ray(render: Render, promtool: str, tmp_path: Path) -> None:
    documents = render(EVERYTHING)
    monitor = one(documents, "PodMonitor")["spec"]
    (endpoint,) = monitor["podMetricsEndpoints"]
    own = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    of_compose = own["scrape_configs"][0]["metric_relabel_configs"]
    ours = [
        {"source_labels": step["sourceLabels"], "regex": step["regex"]}
        | ({"action": "keep"} if step["action"] == "keep" else {"target_label": step["targetLabel"]})
        for step in endpoint["metricRelabelings"]
    ]
    assert ours[1] == of_compose[1]
    assert ours[0] == of_compose[0] | {"regex": "ray_deocc_.*"}
    for template in templates(one(documents, "RayService")):
        assert monitor["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        assert endpoint["port"] in {port["name"] for port in template["spec"]["containers"][0]["ports"]}
    rules = tmp_path / "rules.yml"
    rules.write_text(yaml.safe_dump(one(documents, "PrometheusRule")["spec"]))
    done = subprocess.run([promtool, "check", "rules", rules], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(rules.read_text()) == yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())


def test_dashboard_comes_whole(render: Render) -> None:
    (text,) = one(render(EVERYTHING), "ConfigMap")["data"].values()
    assert json.loads(text) == json.loads((DEPLOY / "grafana" / "dashboards" / "deocc.json").read_text())


def test_budget_and_policy_select_our_pods(render: Render) -> None:
    documents = render(EVERYTHING)
    head, worker = [template["metadata"]["labels"] for template in templates(one(documents, "RayService"))]
    budget = one(documents, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"]
    assert budget.items() <= worker.items()
    assert not budget.items() <= head.items()
    policy = one(documents, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"]
    assert policy.items() <= worker.items()
    assert policy.items() <= head.items()


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"replicas": 3}, "replicas"),
        ({"completer": {"gpu": 1}}, "gpu"),
        ({"settings": {"que": 3}}, "que"),
        ({"edge": {"replicas": 0}}, "replicas"),
        ({"edge": {"replicas": 2}}, "images.existingClaim"),
        ({"completer": {"gpus": 1}}, "nvidia.com/gpu"),
        ({"completer": {"minReplicas": 2}}, "maxReplicas"),
        ({"workers": {"minReplicas": 2}}, "maxReplicas"),
        ({"engine": {"name": "deocc-anything"}}, "engine.volume"),
        ({"engine": {"volume": {"create": True}, "job": {"enabled": True}}}, "nothing to do"),
        (
            {"engine": {"volume": {"create": True}, "job": {"enabled": True, "pull": "deocc-anything"}}},
            "acceptLicence",
        ),
    ],
)
def test_unfit_values_are_refused(render: Render, values: dict[str, Any], word: str) -> None:
    with pytest.raises(AssertionError, match=word):
        render(values)


def test_values_file_and_schema_name_the_same_things() -> None:
    def names(schema: dict[str, Any]) -> dict[str, Any] | None:
        if "$ref" in schema:
            schema = VALUES_SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
        return {key: names(value) for key, value in schema["properties"].items()} if "properties" in schema else None

    def check(known: dict[str, Any], given: dict[str, Any], path: str) -> None:
        assert known.keys() == given.keys(), path
        for key, inner in known.items():
            if inner is not None and key not in ("settings", "resources"):
                check(inner, given[key], f"{path}.{key}")

    named = names(VALUES_SCHEMA)
    assert named is not None
    check(named, yaml.safe_load((CHART / "values.yaml").read_text()), "")


def test_settings_of_the_chart_are_the_services() -> None:
    known = VALUES_SCHEMA["properties"]["settings"]["properties"]
    assert known.keys() <= Settings.model_fields.keys()
    assert known["limits"]["properties"].keys() == Limits.__dataclass_fields__.keys()


def test_plain_manifest_is_what_the_chart_renders(render: Render) -> None:
    plain = yaml.safe_load((DEPLOY / "kubernetes" / "rayservice.yaml").read_text())
    rendered = one(render({}), "RayService")
    for metadata in [rendered["metadata"], *(template["metadata"] for template in templates(rendered))]:
        del metadata["labels"]["app.kubernetes.io/managed-by"], metadata["labels"]["helm.sh/chart"]
    assert plain == rendered
