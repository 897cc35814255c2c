"""The Helm chart: what it renders is accepted by a real API server, and wrong values are refused before anything is sent."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from finetune_operator.main import parser
from tests.cluster.control_plane import ControlPlane
from tests.integration.chart.helm import (
    CHART,
    REPOSITORY,
    HelmFailed,
    container,
    helm,
    manifests,
    named,
    only,
    render,
    set_values,
)

NODES = "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"
PODS = "affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution"

VARIANTS = {
    "as it comes": [],
    "one namespace": ["watchNamespace=default"],
    "every option": [
        "watchNamespace=default",
        "logFormat=json",
        "crds.keep=false",
        "metrics.service.enabled=true",
        "metrics.service.annotations.prometheus\\.io/scrape=yes",
        "image.repository=registry.example:5000/team/operator",
        f"image.digest=sha256:{'a' * 64}",
        "trainer.image.tag=v2_with-CUDA.13",
        "imagePullSecrets[0].name=registry",
        "serviceAccount.name=operator",
        "serviceAccount.annotations.team=ml",
        "podLabels.team=ml",
        "podAnnotations.note=hello",
        "nodeSelector.disk=ssd",
        "tolerations[0].key=dedicated",
        "tolerations[0].operator=Exists",
        "priorityClassName=",
        "fullnameOverride=tuner",
        "trainer.env.HTTPS_PROXY=http://proxy.example:3128",
        "trainer.env.NO_PROXY=.svc\\,10.0.0.1",
        "trainer.trustedCa.configMap=corporate-ca",
        "podSecurity.fixedIds=false",
    ],
    "without CRD, RBAC and service account": [
        "crds.enabled=false",
        "rbac.create=false",
        "rbac.aggregate=false",
        "serviceAccount.create=false",
    ],
    "a long release name": [
        "nameOverride=an-operator-with-a-name-that-is-nearly-as-long-as-allowed",
        "metrics.service.enabled=true",
    ],
    "amounts and a placement as people write them": [
        "resources.limits.memory=536870912",
        "resources.limits.cpu=1.5",
        "resources.requests.memory=0.5Gi",
        "resources.requests.cpu=1e-1",
        "tolerations[0].key=node.kubernetes.io/unreachable",
        "tolerations[0].effect=NoExecute",
        "tolerations[0].tolerationSeconds=30",
        "tolerations[1].operator=Exists",
        "podLabels.example\\.com/team_a=ml",
        "affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight=1",
        "affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0].key=zone",
        "affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0].operator=Exists",
        "affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey=kubernetes.io/hostname",
        "affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector.matchLabels.app=x",
        f"{NODES}[0].matchExpressions[0].key=zone",
        f"{NODES}[0].matchExpressions[0].operator=NotIn",
        f"{NODES}[0].matchExpressions[0].values={{a,b}}",
    ],
    "a certificate of somebody else's": ["progress.secretName=given-tls"],
    "no progress": ["progress.enabled=false"],
    "one replica": ["replicas=1"],
    "a registry with a port": [
        "image.repository=localhost:5000/op",
        "trainer.image.repository=r.example:5000/a/b__c/d-e",
    ],
}

WRONG_VALUES = {
    "a misspelt value": ("image.repo=x", "'/image': additional properties 'repo'"),
    "an unknown value": ("replicaCount=2", "additional properties 'replicaCount'"),
    "a number that is a word": ("replicas=two", "'/replicas': got string, want integer"),
    "a negative number": ("replicas=-1", "'/replicas': minimum"),
    "no replica, of which nothing would act": ("replicas=0", "'/replicas': minimum: got 0, want 1"),
    "a log format that is none": ("logFormat=xml", "'/logFormat': value must be one of 'text', 'json'"),
    "text for a block": ("image=x", "'/image': got string, want object"),
    "a switch that is a word": ("crds.keep=sometimes", "'/crds/keep': got string, want boolean"),
    "a digest that is a tag": ("image.digest=v1", "'/image/digest': 'v1' does not match pattern"),
    "an allowed key with a pattern": ("trainer.allowedPodKeys={*.istio.io}", "'/trainer/allowedPodKeys/0'"),
    "an image without a name": ("trainer.image.repository=", "'/trainer/image/repository'"),
    "a tag in the repository": (
        "image.repository=team/op:1",
        'image.repository: "team/op:1" holds a tag; give that in',
    ),
    "a tag after a port": (
        "trainer.image.repository=r:5000/op:1",
        'trainer.image.repository: "r:5000/op:1" holds a tag',
    ),
    "a digest in the repository": (
        f"image.repository=op@sha256:{'a' * 64}",
        "holds a digest; give that in image.digest",
    ),
    "an address as an image": ("image.repository=https://r.example/op", "is no name of an image; write it as"),
    "a name in capitals": ("image.repository=r.example/Team/op", "is no name of an image; write it as"),
    "a namespace in capitals": ("watchNamespace=Team", "'/watchNamespace': 'Team' does not match pattern"),
    "a word for all namespaces": ("watchNamespace=all", "watchNamespace: leave it empty for all namespaces"),
    "a name that no Service can have": ("fullnameOverride=a.b", "'/fullnameOverride'"),
    "an amount in a wrong unit": ("resources.limits.memory=1GB", "'/resources/limits/memory': '1GB' does not match"),
    "an amount that is a word": ("resources.requests.cpu=one", "'/resources/requests/cpu': 'one' does not match"),
    "a negative amount": ("resources.requests.cpu=-1", "'/resources/requests/cpu': minimum"),
    "a misspelt toleration": ("tolerations[0].kye=a", "'/tolerations/0': additional properties 'kye'"),
    "an operator that is none": ("tolerations[0].operator=Exits", "'/tolerations/0/operator': value must be one of"),
    "a misspelt affinity": ("affinity.nodeAfinity.x=1", "'/affinity': additional properties 'nodeAfinity'"),
    "a misspelt affinity, deep inside": (
        "affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKy=a",
        "'/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution/0'",
    ),
    "a label that none can be": ("podLabels.team=a b", "'/podLabels/team': 'a b' does not match"),
    "a Secret that none can be": ("progress.secretName=A_b", "'/progress/secretName': 'A_b' does not match"),
    "a number as a label": ("podLabels.team=1", "'/podLabels/team': got number, want string"),
    "a key that none can be": ("podLabels.a b=c", "'/podLabels': additional properties 'a b' not allowed"),
    "an annotation's key that none can be": ("podAnnotations._/b=c", "'/podAnnotations': additional properties '_/b'"),
    "a variable that none can be": ("trainer.env.1A=b", "'/trainer/env': additional properties '1A' not allowed"),
    "a name that no object can have": ("serviceAccount.name=a..b", "'/serviceAccount/name': 'a..b' does not match"),
    "a time of nothing": ("metrics.serviceMonitor.interval=0s", "'/metrics/serviceMonitor/interval': '0s' does not"),
    "a time in another order": ("metrics.serviceMonitor.interval=30s1m", "'/metrics/serviceMonitor/interval'"),
    "a time of no length": ("metrics.serviceMonitor.interval=", "'/metrics/serviceMonitor/interval': minLength"),
    "a misspelt resource": ("resources.limits.memroy=1Gi", "'/resources/limits': additional properties 'memroy'"),
    "bytes for MiB": (
        "resources.limits.memory=64",
        "resources.limits.memory: 64 is less than the operator ever takes (some 100Mi); write a number with its unit, such as 512Mi.",
    ),
    "thousandths of a byte": (
        "resources.limits.memory=512m",
        "resources.limits.memory: 512m is less than the operator",
    ),
    "KiB for MiB": ("resources.limits.memory=512Ki", "resources.limits.memory: 512Ki is less than the operator"),
    "bytes asked for": ("resources.requests.memory=128", "resources.requests.memory: 128 is less than the operator"),
    "a limit of nothing": (
        "resources.limits.memory=0",
        "resources.limits.memory: 0 is no limit that anything could keep",
    ),
    "more than the limit": (
        "resources.requests.memory=1Gi",
        "resources.requests.memory: 1Gi is more than resources.limits.memory, which is 512Mi; lower it, or raise that.",
    ),
    "cores for thousandths": (
        "resources.limits.cpu=1000",
        "resources.limits.cpu: 1000 are so many cores, and the operator takes no more than one; write 500m for half of one.",
    ),
    "cores asked for": ("resources.requests.cpu=500", "resources.requests.cpu: 500 are so many cores"),
    "hardly any of a core": ("resources.limits.cpu=1m", "resources.limits.cpu: 1m is too little to ever be ready"),
    "a toleration of nothing": ("tolerations[0].value=a", "'/tolerations/0': missing property 'key'"),
    "a toleration of all with a value": (
        "tolerations[0].operator=Exists,tolerations[0].value=a",
        "'/tolerations/0/value': value must be ''",
    ),
    "seconds of what evicts nothing": (
        "tolerations[0].key=a,tolerations[0].tolerationSeconds=5",
        "'/tolerations/0': missing property 'effect'",
    ),
    "negative seconds": (
        "tolerations[0].key=a,tolerations[0].effect=NoExecute,tolerations[0].tolerationSeconds=-5",
        "'/tolerations/0/tolerationSeconds': minimum",
    ),
    "one of no values": (
        f"{NODES}[0].matchExpressions[0].key=a,{NODES}[0].matchExpressions[0].operator=In",
        "nodeSelectorTerms/0/matchExpressions/0': missing property 'values'",
    ),
    "a value of what need only be there": (
        f"{NODES}[0].matchExpressions[0].key=a,{NODES}[0].matchExpressions[0].operator=Exists,"
        f"{NODES}[0].matchExpressions[0].values={{b}}",
        "matchExpressions/0/values': maxItems",
    ),
    "more than a word": (
        f"{NODES}[0].matchExpressions[0].key=a,{NODES}[0].matchExpressions[0].operator=Gt,"
        f"{NODES}[0].matchExpressions[0].values={{b}}",
        "matchExpressions/0/values/0': 'b' does not match",
    ),
    "an order among labels of pods": (
        f"{PODS}[0].topologyKey=a,{PODS}[0].labelSelector.matchExpressions[0].key=a,"
        f"{PODS}[0].labelSelector.matchExpressions[0].operator=Gt,{PODS}[0].labelSelector.matchExpressions[0].values={{4}}",
        "labelSelector/matchExpressions/0/operator': value must be one of",
    ),
}


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS.keys())
def test_the_api_server_accepts_every_manifest(values: list[str], control_plane: ControlPlane, namespace: str) -> None:
    rendered = helm("template", "my.release", str(CHART), f"--namespace={namespace}", *set_values(values))
    said = control_plane.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", input=rendered)
    assert len(said.splitlines()) == len(manifests(rendered))


def test_names_that_yaml_reads_as_something_else_stay_names(control_plane: ControlPlane, namespace: str) -> None:
    values = {
        "fullnameOverride": "123",
        "nameOverride": "1",
        "serviceAccount.name": "1e3",
        "watchNamespace": namespace,
        "priorityClassName": "0",
        "nodeSelector.gpu": "true",
        "podLabels.release": "1.10",
        "trainer.trustedCa.configMap": "0.5",
        "trainer.env.DEBUG": "yes",
    }
    options = [f"--set-string={name}={value}" for name, value in values.items()]
    rendered = helm("template", "42", str(CHART), f"--namespace={namespace}", *options)
    said = control_plane.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", input=rendered)
    assert len(said.splitlines()) == len(manifests(rendered))


def test_the_operators_pod_passes_restricted_pod_security(control_plane: ControlPlane, namespace: str) -> None:
    template = only(render(["serviceAccount.create=false"]), "Deployment")["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "operator"}, "spec": template["spec"]}
    created = control_plane.api.post(f"/api/v1/namespaces/{namespace}/pods?dryRun=All", pod)
    assert created["metadata"]["name"] == "operator"


def test_a_release_can_be_installed_by_helm_itself(control_plane: ControlPlane, namespace: str) -> None:
    said = helm(
        "install", "release", str(CHART), f"--namespace={namespace}", "--dry-run=server", "--set=crds.enabled=false",
        f"--kubeconfig={control_plane.kubeconfig}",
    )  # fmt: skip
    assert "The operator watches FineTuneJobs in all namespaces." in said


def test_lint_finds_nothing() -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART))


@pytest.mark.parametrize(("value", "said"), WRONG_VALUES.values(), ids=WRONG_VALUES.keys())
def test_a_wrong_value_is_refused_with_its_path_before_anything_is_sent(value: str, said: str) -> None:
    with pytest.raises(HelmFailed) as refusal:
        helm("template", "release", str(CHART), f"--set={value}")
    assert said in str(refusal.value)


OF_METRICS = ["--set=watchNamespace=default", "--set=metrics.service.enabled=true"]


@pytest.mark.parametrize(
    ("release", "values", "said"),
    [
        ("42", [], 'the name of the release, "42", begins with a digit, and Kubernetes v1.35.0 takes no Service called 42-finetune-operator-progress'),
        ("42", OF_METRICS, "takes no Service called 42-finetune-operator-metrics; set fullnameOverride to a name that begins with a letter."),
        ("release", ["--set-string=fullnameOverride=1ab"], 'fullnameOverride: "1ab" begins with a digit, and Kubernetes v1.35.0 takes no Service called 1ab-progress'),
        ("42", ["--set=fullnameOverride=tuner"], ""),
        ("42", ["--set=watchNamespace=default"], ""),
    ],
)  # fmt: skip
def test_a_name_with_a_digit_first_is_refused_where_kubernetes_takes_no_such_service(
    release: str, values: list[str], said: str, control_plane: ControlPlane, namespace: str
) -> None:
    command = ("template", release, str(CHART), f"--namespace={namespace}", *values)
    if said:
        with pytest.raises(HelmFailed) as refusal:
            helm(*command, "--kube-version=1.35.0")
        assert said in str(refusal.value)
    else:
        assert helm(*command, "--kube-version=1.35.0")
    rendered = helm(*command, "--kube-version=1.36.0")  # as the API server here is
    assert control_plane.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", input=rendered)


def test_a_block_that_is_nulled_is_left_out_or_missed_by_name() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for name in [name for name, value in values.items() if isinstance(value, dict | list)]:
        try:
            assert render([f"{name}=null"])
        except HelmFailed as refusal:
            assert f"missing property '{name}'" in str(refusal)  # noqa: PT017


def test_every_value_is_in_the_schema_and_documented() -> None:
    """`additionalProperties: false` refuses a value that the schema does not know, so the defaults passing shows the rest."""
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(values) == set(schema["properties"]) - {"global"}


def test_the_crd_is_the_generated_one() -> None:
    crd = only(render([]), "CustomResourceDefinition")
    generated = yaml.safe_load((CHART / "files" / "crd.yaml").read_text())
    assert crd["spec"] == generated["spec"]


def test_uninstalling_keeps_the_jobs_unless_told_otherwise() -> None:
    kept = only(render([]), "CustomResourceDefinition")
    assert kept["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert "annotations" not in only(render(["crds.keep=false"]), "CustomResourceDefinition")["metadata"]


def test_the_operator_gets_exactly_the_documented_rules() -> None:
    rules, to_hear, of_queues = (
        yaml.safe_load((CHART / "files" / f"{name}-rules.yaml").read_text())
        for name in ("operator", "progress", "kueue")
    )
    for values, expected in (
        ([], rules + to_hear + of_queues),
        (["progress.enabled=false"], rules + of_queues),
        (["kueue.enabled=false"], rules + to_hear),
    ):
        found = render(values)
        role = only(found, "ClusterRoleBinding")["roleRef"]["name"]
        assert [m["rules"] for m in found if (m["kind"], m["metadata"]["name"]) == ("ClusterRole", role)] == [expected]


def test_an_operator_of_one_namespace_has_no_right_outside_it() -> None:
    found = render(["watchNamespace=team", "crds.enabled=false"])
    kinds = {"ServiceAccount", "Role", "RoleBinding", "Deployment", "PodDisruptionBudget"}
    assert {m["kind"] for m in found} == kinds
    places = {m["metadata"]["name"]: m["metadata"]["namespace"] for m in found if m["kind"] == "Role"}
    assert places == {"release-finetune-operator": "team", "release-finetune-operator:lease": "default"}
    assert "--namespace=team" in container(found)["args"]


@pytest.mark.parametrize(
    ("values", "secret", "verbs"),
    [([], "release-finetune-operator-progress", ["get", "patch"]), (["progress.secretName=given"], "given", ["get"])],
)
def test_the_operator_may_read_one_secret_of_its_own_and_no_other(
    values: list[str], secret: str, verbs: list[str]
) -> None:
    found = render(values)
    rules = [rule for m in found if m["kind"] == "ClusterRole" for rule in m["rules"]]
    assert not [rule for rule in rules if {"secrets", "*"} & set(rule["resources"])]
    [rule] = named(found, "Role", "release-finetune-operator-progress")["rules"]
    assert (rule["resources"], rule["resourceNames"], rule["verbs"]) == (["secrets"], [secret], verbs)
    assert [m["metadata"]["name"] for m in found if m["kind"] == "Secret"] == ([] if values else [secret])


def test_trainers_are_told_the_name_of_the_service_that_leads_to_the_operator() -> None:
    found = manifests(helm("template", "my.release", str(CHART), "--namespace=space"))
    service, operator = only(found, "Service"), container(found)
    arguments = [argument for argument in operator["args"] if "--progress" in argument]
    options = parser().parse_args(["run", "--trainer-image=i", *arguments])
    assert options.progress_url == f"https://{service['metadata']['name']}.space.svc/progress"
    assert options.progress_secret == f"space/{only(found, 'Secret')['metadata']['name']}"
    [port] = service["spec"]["ports"]
    ports = {p["name"]: p["containerPort"] for p in operator["ports"]}
    assert (port["port"], options.progress_listen) == (443, f":{ports[port['targetPort']]}")
    labels = only(found, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()


def test_an_operator_of_one_namespace_hears_no_trainers_and_says_so() -> None:
    assert not [argument for argument in container(render(["watchNamespace=team"]))["args"] if "progress" in argument]


@pytest.mark.parametrize(
    ("example", "path"),
    [("argo-cd", ("source", "helm", "valuesObject")), ("flux", ("values",))],
    ids=["argo-cd", "flux"],
)
def test_the_chart_takes_what_the_examples_for_git_give_it(example: str, path: tuple[str, ...], tmp_path: Path) -> None:
    text = (REPOSITORY / "examples" / "gitops" / f"{example}.yaml").read_text("utf-8")
    [release] = (
        m
        for m in yaml.safe_load_all(text)
        if m["kind"] in ("Application", "HelmRelease") and m["metadata"]["name"] == "finetune-operator"
    )
    given = release["spec"]
    for name in path:
        given = given[name]
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(given), "utf-8")
    found = manifests(helm("template", "finetune-operator", str(CHART), f"--values={values}"))
    operator = container(found)
    assert operator["image"].startswith("registry.example.com/ml/finetune-operator:")
    assert any(a.startswith("--trainer-image=registry.example.com/ml/finetune-trainer:") for a in operator["args"])


def test_it_is_alive_by_the_age_of_its_watches_and_ready_once_each_was_heard() -> None:
    operator = container(render([]))
    assert operator["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert operator["readinessProbe"]["httpGet"]["path"] == "/readyz"


@pytest.mark.parametrize("values", [[], ["watchNamespace=team"], ["progress.enabled=false"]], ids=str)
def test_replicas_share_one_lease_that_they_may_make_read_and_write(values: list[str]) -> None:
    found = render(values)
    options = parser().parse_args(["run", *(a for a in container(found)["args"] if a.startswith(("--lease", "--tr")))])
    role = named(found, "Role", "release-finetune-operator:lease")
    [rule] = role["rules"]
    assert options.lease == (role["metadata"]["namespace"], rule["resourceNames"][0])
    assert rule["resources"] == ["leases"]
    assert rule["verbs"] == ["get", "create", "patch"]
    assert not [m for m in found if m["kind"] == "Lease"], "Argo CD would pass over it"
    assert not [m for m in found if m["kind"] == "ClusterRole" if "leases" in str(m["rules"])]


def test_a_replica_is_reached_by_others_at_the_address_of_its_pod() -> None:
    operator = container(render([]))
    assert "--address=$(POD_ADDRESS)" in operator["args"]
    [variable] = operator["env"]
    assert variable == {"name": "POD_ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}


@pytest.mark.parametrize(("values", "replicas"), [([], 2), (["replicas=1"], 1), (["replicas=3"], 3)])
def test_replicas_come_before_others_go_and_no_drain_takes_two(values: list[str], replicas: int) -> None:
    found = render(values)
    spec = only(found, "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]["type"]) == (replicas, "RollingUpdate")
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    budgets = [m["spec"] for m in found if m["kind"] == "PodDisruptionBudget"]
    assert len(budgets) == (replicas > 1)
    for budget in budgets:  # one that no replica may leave would hold up every drain
        assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")
        assert budget["selector"] == spec["selector"]


def test_replicas_prefer_different_nodes_beside_what_the_user_asks_for() -> None:
    key = (
        "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0]"
    )
    for values in ([], [f"{key}.key=pool", f"{key}.operator=Exists"]):
        spec = only(render(values), "Deployment")["spec"]
        affinity = spec["template"]["spec"]["affinity"]
        [term] = affinity["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
        assert term["podAffinityTerm"]["topologyKey"] == "kubernetes.io/hostname"
        assert term["podAffinityTerm"]["labelSelector"] == spec["selector"]
        assert ("nodeAffinity" in affinity) == bool(values)


def test_a_digest_wins_over_a_tag() -> None:
    digest = f"sha256:{'a' * 64}"
    operator = container(render(["image.repository=r/op", "image.tag=v1", f"image.digest={digest}"]))
    assert operator["image"] == f"r/op@{digest}"


def test_the_tag_is_the_charts_version_unless_given() -> None:
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    operator = container(render(["trainer.image.repository=r/trainer"]))
    assert operator["image"] == f"finetune-operator:{version}"
    assert f"--trainer-image=r/trainer:{version}" in operator["args"]


def test_keys_that_the_platform_allows_are_told_to_the_operator_as_it_takes_them() -> None:
    values = ["trainer.allowedPodKeys={istio.io,vault.hashicorp.com/role}"]
    arguments = [argument for argument in container(render(values))["args"] if "pod-keys" in argument]
    assert arguments == ["--allow-pod-keys=istio.io", "--allow-pod-keys=vault.hashicorp.com/role"]
    options = parser().parse_args(["run", "--trainer-image=i", *arguments])
    assert options.allow_pod_keys == ["istio.io", "vault.hashicorp.com/role"]


def test_labels_of_the_user_do_not_replace_those_the_deployment_selects_by() -> None:
    spec = only(render(["podLabels.team=ml", "podLabels.app\\.kubernetes\\.io/name=other"]), "Deployment")["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"].items() <= labels.items()
    assert labels["team"] == "ml"
