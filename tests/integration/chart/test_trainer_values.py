"""What a chart says about all training pods: the operator reads it as it was written, and both refuse the same with the same words."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from finetune_operator.worlds.kube.platform import read_env
from tests.integration.chart.helm import CHART, HelmFailed, container, helm, manifests, render

ALLOWED = {
    "HTTPS_PROXY": "http://proxy.example:3128",
    "https_proxy": "http://user@proxy.example:3128",
    "NO_PROXY": ".svc,.cluster.local,10.0.0.0/8",
    "HF_ENDPOINT": "https://hub.example/api/huggingface",
    "HF_HUB_DISABLE_XET": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "NOTE": "a=b, $HOME and $(HOME) and $$",
    "QUOTES": "\"double\" and 'single': {yaml: no}",
    "EMPTY": "",
}

REFUSED = {
    "LD_PRELOAD": ("x.so", "it would change what runs in the pod"),
    "PYTHONPATH": ("/tmp", "it would change what runs in the pod"),
    "PYTHONSTARTUP": ("/tmp/x", "it would change what runs in the pod"),
    "FINETUNE_RUN": ("x", "it would change what runs in the pod"),
    "finetune_workspace": ("/", "it would change what runs in the pod"),
    "HOME": ("/", "the operator sets it itself"),
    "PATH": ("/bin", "the operator sets it itself"),
    "HF_HOME": ("/cache", "the operator sets it itself"),
    "SSL_CERT_FILE": ("/ca.pem", "name a ConfigMap in trainer.trustedCa instead"),
    "REQUESTS_CA_BUNDLE": ("/ca.pem", "name a ConfigMap in trainer.trustedCa instead"),
    "AWS_ENDPOINT_URL": ("https://s3.example", "storage is each job's own"),
    "AWS_SECRET_ACCESS_KEY": ("x", "storage is each job's own"),
    "GOOGLE_APPLICATION_CREDENTIALS": ("/x", "storage is each job's own"),
    "HF_TOKEN": ("hf_x", "every Job would show it"),
    "WANDB_API_KEY": ("x", "every Job would show it"),
    "PROXY_PASSWORD": ("x", "every Job would show it"),
    "ALL_PROXY": ("user:secret@proxy.example:3128", "ALL_PROXY holds a password, and every Job would show it"),
    "HTTPS_PROXY": (
        "http://user:secret@proxy.example:3128",
        "HTTPS_PROXY holds a password, and every Job would show it",
    ),
}


def test_the_operator_reads_each_variable_as_it_was_written(tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump({"trainer": {"env": ALLOWED}}))
    args = container(manifests(helm("template", "release", str(CHART), f"--values={values}")))["args"]
    given = [a.removeprefix("--trainer-env=") for a in args if a.startswith("--trainer-env=")]
    assert dict(read_env(text.replace("$$", "$")) for text in given) == ALLOWED


@pytest.mark.parametrize("name", REFUSED)
def test_chart_and_operator_refuse_the_same_variables(name: str) -> None:
    value, why = REFUSED[name]
    with pytest.raises(ValueError) as by_operator:
        read_env(f"{name}={value}")
    with pytest.raises(HelmFailed) as by_chart:
        render([f"trainer.env.{name}={value}"])
    assert why in str(by_operator.value)
    assert f"trainer.env: {by_operator.value}." in str(by_chart.value)


@pytest.mark.parametrize("text", ["NOTHING", "=x", "A-B=x", "1A=x", ""])
def test_what_is_no_variable_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no environment variable; write NAME=value"):
        read_env(text)
