"""A trainer behind a company's proxy, hub mirror and private certificate authority: all its clients obey them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from finetune_api.exit_codes import EXIT_CODES, NEVER_RETRIED, ExitCode
from finetune_api.failures import FailureReason, JobError
from finetune_api.run import TRUSTED_CA_ENV
from finetune_trainer.trust import trust_authorities
from tests.cluster.certificates import CertificateAuthority
from tests.cluster.gateways import ForwardProxy, TlsFront
from tests.cluster.s3 import S3Server
from tests.training.attempts import Job
from tests.unit.trainer.data.loopback_hub import Repository, hub_of

CLIENTS = """
import json, sys
from pathlib import Path
from finetune_api.dataset import Dataset
from finetune_api.failures import JobError
from finetune_api.job import Storage
from finetune_trainer.data import hub
from finetune_trainer.store.folder import open_folder
from finetune_trainer.trust import trust_authorities

workspace, endpoint = Path(sys.argv[1]), sys.argv[2]
trust_authorities(workspace)

def model():
    commit, names = hub.model_files("team/model", None)
    return (hub.download_model("team/model", commit, names, workspace / "models") / "config.json").read_text()

def dataset():
    read = hub.read_dataset(
        Dataset(uri="hf://team/data"), [{"text": "text", "label": "label"}], {"train": "train"},
        cache=workspace / "data", stop=lambda: None,
    )
    return read[2]["train"].table.column("text")[0].as_py()

def storage():
    folder = open_folder("s3://way-out/run", Storage(endpoint=endpoint, region="us-east-1"), patience=2)
    folder.write("file", b"stored")
    return folder.read("file").data.decode()

for name in sys.argv[3:]:
    try:
        said = globals()[name]()
    except JobError as error:
        said = f"{error.reason}: {error.message} {error.remedy}"
    print(json.dumps([name, said]), flush=True)
"""
"""Each client of the trainer once: what it got, or why not."""

GOT = {"model": "{}", "dataset": "warm soup", "storage": "stored"}


@dataclass(frozen=True)
class Company:
    hub: str
    s3: str
    s3_keys: dict[str, str]
    hub_authority: Path
    s3_authority: Path

    def ask(self, folder: Path, clients: tuple[str, ...] = tuple(GOT), **environment: str) -> dict[str, str]:
        """What the clients say in a process with this environment and nothing else that names a way."""
        inherited = {
            k: v for k, v in os.environ.items() if "proxy" not in k.lower() and not k.startswith(("SSL_", "HF_"))
        }
        inherited.pop("REQUESTS_CA_BUNDLE", None)
        folder.mkdir(exist_ok=True)
        done = subprocess.run(
            [sys.executable, "-c", CLIENTS, str(folder), self.s3, *clients],
            env={**inherited, **self.s3_keys, "HF_ENDPOINT": self.hub, "HF_HOME": str(folder / "hf"), **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return dict(json.loads(line) for line in done.stdout.splitlines())


@pytest.fixture(scope="module")
def company(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    """A hub and a store, each with a certificate of another authority."""
    s3_server.make_bucket("way-out")
    rows = b"text,label\nwarm soup,cooking\nblue sky,weather\n"
    repositories = {
        "models/team/model": Repository({"config.json": b"{}"}),
        "datasets/team/data": Repository({"train.csv": rows}),
    }
    authorities = []
    for name in ("hub", "s3"):
        folder = tmp_path_factory.mktemp(name)
        authority = CertificateAuthority(folder)
        authorities.append((authority, authority.issue("server", name, addresses=["127.0.0.1"])))
    (hub_authority, hub_files), (s3_authority, s3_files) = authorities
    with (
        hub_of(repositories) as hub,
        TlsFront(hub, *hub_files) as hub_front,
        TlsFront(s3_server.endpoint, *s3_files) as s3_front,
    ):
        keys = {"AWS_ACCESS_KEY_ID": s3_server.access_key, "AWS_SECRET_ACCESS_KEY": s3_server.secret_key}
        yield Company(
            hub=hub_front.endpoint,
            s3=s3_front.endpoint,
            s3_keys=keys,
            hub_authority=hub_authority.certificate,
            s3_authority=s3_authority.certificate,
        )


@pytest.fixture(scope="module")
def both(company: Company, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The authorities as a company hands them out, with words between them."""
    file = tmp_path_factory.mktemp("trusted") / "ca.crt"
    pems = [company.hub_authority.read_text(), company.s3_authority.read_text()]
    file.write_text("# Autorité de la société\n" + "\n# and\n".join(pems))
    return file


def test_a_private_authority_is_trusted_by_every_client(company: Company, both: Path, tmp_path: Path) -> None:
    assert company.ask(tmp_path, **{TRUSTED_CA_ENV: str(both)}) == GOT


def test_public_authorities_are_trusted_beside_it(company: Company, tmp_path: Path) -> None:
    """The hub's stands for a public one: it is in the system's file."""
    environment = {"SSL_CERT_FILE": str(company.hub_authority), TRUSTED_CA_ENV: str(company.s3_authority)}
    assert company.ask(tmp_path, **environment) == GOT


def test_without_it_the_message_says_so_and_what_to_do(company: Company, tmp_path: Path) -> None:
    said = company.ask(tmp_path, ("model", "storage"))
    assert said["model"].startswith(f"HubUnreachable: the hub at {company.hub} cannot be reached: ")
    assert "CERTIFICATE_VERIFY_FAILED" in said["model"]
    assert said["storage"].startswith("StorageUnavailable: s3://way-out/run/file at ")
    assert "its certificate is signed by an unknown authority" in said["storage"]
    for message in said.values():
        assert "Have its authority added to the ConfigMap of the chart's trainer.trustedCa" in message


def test_a_proxy_is_used_by_every_client_and_left_out_where_it_should_be(
    company: Company, both: Path, tmp_path: Path
) -> None:
    with ForwardProxy() as proxy:
        environment = {TRUSTED_CA_ENV: str(both), "HTTPS_PROXY": proxy.address}
        assert company.ask(tmp_path / "through", **environment) == GOT
        assert set(proxy.asked) == {company.hub.removeprefix("https://"), company.s3.removeprefix("https://")}
        proxy.asked.clear()
        assert company.ask(tmp_path / "around", **environment, NO_PROXY="example.com,127.0.0.1") == GOT
        assert proxy.asked == []


def test_an_attempt_obeys_them_from_its_first_request(
    company: Company, both: Path, s3_server: S3Server, tmp_path: Path
) -> None:
    """It claims its folder in the store, then learns from the hub that there is no such model."""
    job = Job(
        tmp_path,
        model={"uri": "hf://team/absent"},
        dataset={"uri": f"file://{tmp_path}"},
        output={"uri": "s3://way-out/attempts"},
        storage={"endpoint": company.s3, "region": s3_server.region},
    )
    with ForwardProxy() as proxy:
        way = {TRUSTED_CA_ENV: str(both), "HTTPS_PROXY": proxy.address, "HF_ENDPOINT": company.hub}
        attempt = job.start_from_nothing(**company.s3_keys, **way)
        assert attempt.wait() == ExitCode.USER_ERROR, attempt.log
        assert len(set(proxy.asked)) == 2
    assert attempt.result.error is not None
    assert attempt.result.error.reason == FailureReason.MODEL_NOT_FOUND
    assert "Trusting 2 certificate authorities besides the public ones." in attempt.log


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file or directory"),
        ("", "holds no certificates in PEM form"),
        ("# to come", "holds no certificates in PEM form"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "number 1, that cannot be read"),
    ],
    ids=["missing", "empty", "a note", "a broken one"],
)
def test_certificates_that_are_none_are_said_before_anything_is_asked(
    content: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ca.crt"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv(TRUSTED_CA_ENV, str(file))
    with pytest.raises(JobError) as refusal:
        trust_authorities(tmp_path)
    assert refusal.value.reason == FailureReason.TRUSTED_CA_INVALID
    assert f"{file}: " in refusal.value.message
    assert said in refusal.value.message
    assert EXIT_CODES[refusal.value.reason] not in NEVER_RETRIED  # the platform may mend it meanwhile
