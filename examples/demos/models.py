"""Models of which no package has weights: small ones with weights drawn at random, which know nothing before they are trained."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any


def resnet(folder: Path, side: int) -> None:
    """`tiny-resnet`: a ResNet (He et al. 2016) of 80,000 weights, for images with sides of so many pixels."""
    import torch
    from transformers import ResNetConfig, ResNetModel
    from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil

    quiet()
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=16, hidden_sizes=[16, 32, 64], depths=[1, 1, 1], layer_type="basic")
    ResNetModel(config).save_pretrained(folder / "tiny-resnet")
    ConvNextImageProcessorPil(size={"shortest_edge": side}, crop_pct=1.0).save_pretrained(folder / "tiny-resnet")


def clip(folder: Path, side: int, texts: Iterable[str]) -> None:
    """`tiny-clip`: a CLIP (Radford et al. 2021) of 0.2 million weights, and a tokenizer that knows the words of `texts`."""
    import torch
    from transformers import CLIPConfig, CLIPModel
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    quiet()
    tokenizer = words_of(texts)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
    special: dict[str, Any] = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.cls_token_id}
    special["eos_token_id"] = tokenizer.sep_token_id
    texts_of: dict[str, Any] = {"num_hidden_layers": 2, "vocab_size": len(tokenizer), "max_position_embeddings": 128}
    images_of: dict[str, Any] = {"num_hidden_layers": 4, "image_size": side, "patch_size": 4}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={**sizes, **texts_of, **special}, vision_config={**sizes, **images_of}, projection_dim=64
    )
    CLIPModel(config).save_pretrained(folder / "tiny-clip")
    tokenizer.save_pretrained(folder / "tiny-clip")
    ViTImageProcessorPil(size={"height": side, "width": side}).save_pretrained(folder / "tiny-clip")


def bert(folder: Path, texts: Iterable[str]) -> None:
    """`tiny-bert`: a BERT (Devlin et al. 2019) of 0.1 million weights that fills masks, and a tokenizer that knows the words of `texts`."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    quiet()
    tokenizer = words_of(texts)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_hidden_layers": 2}
    torch.manual_seed(0)
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # there is too little to learn by heart
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=128, pad_token_id=0, **sizes, **dropout)
    BertForMaskedLM(config).save_pretrained(folder / "tiny-bert")
    tokenizer.save_pretrained(folder / "tiny-bert")


def t5(folder: Path, texts: Iterable[str]) -> None:
    """`tiny-t5`: a T5 (Raffel et al. 2020) of 0.3 million weights, and a tokenizer of byte pairs that is learnt from `texts`."""
    import torch
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    quiet()
    tokenizer = _byte_pairs(texts, ["<pad>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", model_max_length=128
    )
    fast.save_pretrained(folder / "tiny-t5")
    sizes = {"d_model": 64, "d_kv": 16, "d_ff": 256, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0}
    ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    torch.manual_seed(0)
    T5ForConditionalGeneration(T5Config(vocab_size=len(fast), **sizes, **ids)).save_pretrained(folder / "tiny-t5")


CHAT = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
"""ChatML, as many models write conversations."""


def llama(folder: Path, texts: Iterable[str]) -> None:
    """`tiny-llama`: a Llama (Touvron et al. 2023) of 0.3 million weights, and a tokenizer of byte pairs, learnt from `texts`, with a chat
    template."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    quiet()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    fast = PreTrainedTokenizerFast(
        tokenizer_object=_byte_pairs(texts, special),
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        model_max_length=256,
        chat_template=CHAT,
    )
    fast.save_pretrained(folder / "tiny-llama")
    sizes = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}
    ids = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": 2}
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(fast), max_position_embeddings=256, tie_word_embeddings=True, **sizes, **ids)
    LlamaForCausalLM(config).save_pretrained(folder / "tiny-llama")


def _byte_pairs(texts: Iterable[str], special: list[str]) -> Any:
    """Tokens over bytes, of which the special ones come first."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    return tokenizer


def ast(folder: Path, rate: int) -> None:
    """`tiny-ast`: an Audio Spectrogram Transformer (Gong et al. 2021) of 0.1 million weights, for sounds of so many samples a second."""
    import torch
    from transformers import ASTConfig, ASTFeatureExtractor, ASTModel

    quiet()
    seen = {"num_mel_bins": 32, "max_length": 56}
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_hidden_layers": 2}
    torch.manual_seed(0)
    config = ASTConfig(patch_size=8, frequency_stride=8, time_stride=8, initializer_range=0.2, **seen, **sizes)
    ASTModel(config).save_pretrained(folder / "tiny-ast")
    ASTFeatureExtractor(sampling_rate=rate, **seen).save_pretrained(folder / "tiny-ast")


def quiet() -> None:
    """No bars for what takes no time."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def words_of(texts: Iterable[str]) -> Any:
    """A tokenizer for which each word of `texts` is a token."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(texts, trainers.WordLevelTrainer(special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=128,
    )
