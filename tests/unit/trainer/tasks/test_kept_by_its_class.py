"""What a model's class makes without a gradient stays as it was pretrained, although transformers asks for one of whatever it loads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    MarianConfig,
    PreTrainedModel,
    WhisperConfig,
    WhisperForAudioClassification,
)

from finetune_trainer.tasks.pretrained import load_model

SMALL = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
}
MODELS: dict[str, tuple[PreTrainedModel, str, set[str]]] = {
    "Whisper's encoder": (
        WhisperForAudioClassification(WhisperConfig(**SMALL, vocab_size=99, num_mel_bins=8, pad_token_id=0)),
        "AutoModelForAudioClassification",
        {"encoder.embed_positions.weight"},
    ),
    "Marian": (
        AutoModelForSeq2SeqLM.from_config(MarianConfig(**SMALL, vocab_size=99, pad_token_id=0, decoder_start_token_id=0)),
        "AutoModelForSeq2SeqLM",
        {"model.encoder.embed_positions.weight", "model.decoder.embed_positions.weight"},
    ),
    "DistilBERT with learnt positions": (
        DistilBertForMaskedLM(DistilBertConfig(vocab_size=99, dim=16, hidden_dim=16, n_layers=1, n_heads=2)),
        "AutoModelForMaskedLM",
        set(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_positions_that_are_sines_get_no_gradient(name: str, tmp_path: Path) -> None:
    model, loads, wanted = MODELS[name]
    model.save_pretrained(tmp_path)
    torch.manual_seed(0)
    getattr(transformers, loads).from_pretrained(tmp_path)
    drawn = torch.get_rng_state()
    torch.manual_seed(0)
    loaded = load_model(tmp_path, AutoConfig.from_pretrained(tmp_path), loads, None, trust_remote_code=False).model
    assert {name for name, parameter in loaded.named_parameters() if not parameter.requires_grad} == wanted
    assert torch.equal(drawn, torch.get_rng_state()), "a head would be drawn otherwise"
