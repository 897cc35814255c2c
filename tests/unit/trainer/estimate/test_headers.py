"""Of a model its settings are fetched, and of its weights the beginning that says what is in them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import get_session
from safetensors.torch import save, save_file

from finetune_api.failures import FailureReason, JobError
from finetune_api.job import Base, Storage
from finetune_trainer.data import hub
from finetune_trainer.estimate import headers
from finetune_trainer.estimate.headers import Described, describe
from finetune_trainer.store.folder import open_folder

FIRST = {"a.weight": torch.zeros(300, 200), "a.bias": torch.zeros(300)}
SECOND = {"b.weight": torch.zeros(7, dtype=torch.bfloat16)}
SHAPES = {"a.weight": (300, 200), "a.bias": (300,), "b.weight": (7,)}
INDEX = {"weight_map": {**dict.fromkeys(FIRST, "one.safetensors"), **dict.fromkeys(SECOND, "two.safetensors")}}
FILES = {
    "config.json": b'{"model_type": "bert"}',
    "tokenizer.json": b"{}",
    "one.safetensors": save(FIRST),
    "two.safetensors": save(SECOND),
    "other.safetensors": save({"c": torch.zeros(1)}),
    "model.safetensors.index.json": json.dumps(INDEX).encode(),
}

client: Any = sys.modules[type(get_session()).__module__.partition(".")[0]]
"""The HTTP client that this version of the hub's library is built on."""


def described(uri: str, workspace: Path) -> Described:
    model = Base.model_construct(uri=uri, revision=None, trust_remote_code=False)
    return describe(model, storage=Storage(), workspace=workspace)


def written(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return folder


def test_the_shapes_of_a_local_model_are_read_in_place(tmp_path: Path) -> None:
    found = described(written(tmp_path / "model").as_uri(), tmp_path / "work")
    assert (found.folder, found.stored, found.kind) == (tmp_path / "model", SHAPES, "bert")
    assert found.types == {"F32", "BF16"}
    assert not (tmp_path / "work").exists()


def test_of_a_stored_model_no_weights_are_downloaded(tmp_path: Path) -> None:
    store = open_folder("memory://describe/model", Storage())
    for name, content in FILES.items():
        store.write(name, content)
    found = described("memory://describe/model", tmp_path)
    assert found.stored == SHAPES
    taken = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert taken == {"config.json", "model.safetensors.index.json"}


@pytest.mark.parametrize("knows_parts", [True, False])
@pytest.mark.parametrize("at_once", [headers.MOST_HEADERS, 20])
def test_of_a_hub_model_only_the_beginnings_are_read_whatever_is_answered(
    knows_parts: bool, at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some mirrors answer all of a file to whoever asks for a part."""
    folder, asked, read = written(tmp_path / "model"), [], []
    monkeypatch.setattr(headers, "MOST_HEADERS", at_once)
    monkeypatch.setattr(hub, "model_files", lambda repo, revision: ("c0ffee", sorted(FILES)))
    monkeypatch.setattr(hub, "download_model", lambda repo, commit, names, cache: asked.extend(names) or folder)

    def answer(request: Any) -> Any:
        content = FILES[request.url.path.rpartition("/")[2]] + bytes(10_000_000)
        first, last = request.headers["range"].removeprefix("bytes=").split("-")
        part = content[int(first) : int(last) + 1] if knows_parts else content

        def parts() -> Iterator[bytes]:
            for begin in range(0, len(part), 65536):
                read.append(begin)
                yield part[begin : begin + 65536]

        return client.Response(206 if knows_parts else 200, content=parts())

    session = client.Client(transport=client.MockTransport(answer))
    monkeypatch.setattr(hub, "get_session", lambda: session)
    assert described("hf://owner/model", tmp_path / "work").stored == SHAPES
    assert asked == ["config.json", "model.safetensors.index.json"]
    assert max(read) < headers.MOST_HEADERS + 65536, "of ten million bytes"


def test_of_adapters_the_model_is_described_that_they_are_for(tmp_path: Path) -> None:
    model, adapter = written(tmp_path / "model"), tmp_path / "adapter"
    adapter.mkdir()
    said = {"peft_type": "LORA", "base_model_name_or_path": str(model)}
    (adapter / "adapter_config.json").write_text(json.dumps(said))
    save_file(SECOND, adapter / "adapter_model.safetensors")
    assert described(adapter.as_uri(), tmp_path / "work").folder == model


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 8, b"\x02\x00\x00\x00\x00\x00\x00\x00[]", b"\x09" + bytes(7) + b"no json"]
)
def test_weights_that_do_not_begin_as_such_are_named(content: bytes, tmp_path: Path) -> None:
    folder = written(tmp_path / "model")
    (folder / "two.safetensors").write_bytes(content)
    with pytest.raises(JobError, match=r"two\.safetensors at file://.*/model does not begin as safetensors") as caught:
        described(folder.as_uri(), tmp_path / "work")
    assert caught.value.reason is FailureReason.MODEL_INVALID
