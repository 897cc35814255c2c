"""Which files that lie beside a model count once adapters bring along files of their own."""

from __future__ import annotations

import pytest

from finetune_trainer.engine.whole import is_replaced

BASE = {
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "merges.txt", "spiece.model", "chat_template.jinja", "processor_config.json"),
    *("modules.json", "modeling_own.py"),
}
VOCABULARY = {"tokenizer.json", "vocab.json", "merges.txt", "spiece.model"}
WITH_TOKENIZER = BASE - VOCABULARY - {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"}
CASES = {
    "nothing": (set(), BASE),
    "a README alone": ({"README.md", "config.json"}, BASE),
    "a template": ({"chat_template.jinja"}, BASE),
    "a tokenizer": ({"tokenizer.json", "tokenizer_config.json"}, WITH_TOKENIZER - {"chat_template.jinja"}),
    "a tokenizer of pieces": ({"spiece.model", "tokenizer_config.json"}, WITH_TOKENIZER - {"chat_template.jinja"}),
    "settings of a tokenizer alone": ({"tokenizer_config.json"}, BASE - {"chat_template.jinja"}),
    "a text that is no vocabulary": ({"requirements.txt"}, BASE),
    "how images are read": ({"preprocessor_config.json"}, BASE - {"processor_config.json"}),
}


@pytest.mark.parametrize("case", CASES)
def test_what_adapters_bring_along_takes_the_place_of_what_says_the_same(case: str) -> None:
    brought, left = CASES[case]
    assert {name for name in BASE if not is_replaced(name, brought)} == left
