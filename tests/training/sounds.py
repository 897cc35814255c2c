"""Tiny models of sounds with random weights, each with a feature extractor as its kind has one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    AutoModelForAudioClassification,
    Data2VecAudioConfig,
    HubertConfig,
    PreTrainedConfig,
    SeamlessM4TFeatureExtractor,
    SEWConfig,
    UniSpeechConfig,
    Wav2Vec2BertConfig,
    Wav2Vec2Config,
    Wav2Vec2ConformerConfig,
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
)

from tests.training.tones import RATE

SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "initializer_range": 0.2,
}
HEARS: dict[str, Any] = {
    **SIZES,
    "conv_dim": (16, 16, 16),
    "conv_kernel": (10, 4, 4),
    "conv_stride": (5, 4, 4),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 16,
    "layerdrop": 0.0,
}
WITH_LAYERS: dict[str, Any] = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
HIDDEN: dict[str, Any] = {
    "mask_time_prob": 0.4,
    "mask_time_length": 2,
    "mask_feature_prob": 0.3,
    "mask_feature_length": 2,
    "mask_feature_min_masks": 0,  # without which transformers hides no channels of a WavLM
}
"""For configs of wav2vec2 and its kin: what they hide of a sound in training."""
WHISPER: dict[str, Any] = {
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 32,
    "num_mel_bins": 8,
    "max_source_positions": 100,
}

CONFIGS: dict[str, Callable[..., PreTrainedConfig]] = {
    "wav2vec2": lambda **more: Wav2Vec2Config(**{**HEARS, **more}),
    "wav2vec2 of layers": lambda **more: Wav2Vec2Config(**{**HEARS, **WITH_LAYERS, **more}),
    "hubert": lambda **more: HubertConfig(**{**HEARS, **more}),
    "wavlm": lambda **more: WavLMConfig(**{**HEARS, **more}),
    "unispeech": lambda **more: UniSpeechConfig(**{**HEARS, **more}),
    "data2vec": lambda **more: Data2VecAudioConfig(**{**HEARS, "conv_pos_kernel_size": 3, **more}),
    "conformer": lambda **more: Wav2Vec2ConformerConfig(**{**HEARS, **more}),
    "sew": lambda **more: SEWConfig(**{**HEARS, "squeeze_factor": 2, **more}),
    "wav2vec2-bert": lambda **more: Wav2Vec2BertConfig(
        **{**SIZES, "feature_projection_input_dim": 16, "layerdrop": 0.0, **more}
    ),
    "ast": lambda **more: ASTConfig(
        **{
            **SIZES,
            "num_mel_bins": 16,
            "max_length": 100,
            "patch_size": 8,
            "frequency_stride": 8,
            "time_stride": 8,
            **more,
        }
    ),
    "whisper": lambda **more: WhisperConfig(**{**WHISPER, **more}),
}
"""Of each kind of model that is tried."""


def extractor_for(kind: str) -> Any:
    if kind == "ast":
        return ASTFeatureExtractor(sampling_rate=RATE, num_mel_bins=16, max_length=100)
    if kind == "whisper":
        return WhisperFeatureExtractor(feature_size=8, sampling_rate=RATE, chunk_length=4)
    if kind == "wav2vec2-bert":
        return SeamlessM4TFeatureExtractor(feature_size=8, num_mel_bins=8, sampling_rate=RATE)
    return Wav2Vec2FeatureExtractor(
        sampling_rate=RATE, do_normalize=True, return_attention_mask=kind == "wav2vec2 of layers"
    )


def save_tiny_sounds(folder: Path, kind: str = "wav2vec2", **more: Any) -> Path:
    """A folder as a pretrained model's: the body alone, and its feature extractor."""
    torch.manual_seed(0)
    config = CONFIGS[kind](**more)
    config.architectures = []
    model = AutoModelForAudioClassification.from_config(config)
    model.base_model.save_pretrained(folder)
    extractor_for(kind).save_pretrained(folder)
    return folder
