"""A tokenizer of BERT's kind, learnt from texts: the same each time.

The library's trainer numbers pieces by the order of a hash map, which is another one in each process, and breaks ties by these numbers:
other ids, other pieces, another model from the same weights. Told of all characters first, it has nothing left to number.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

UNKNOWN = "[UNK]"


def learn_word_pieces(texts: Iterable[str], special: Sequence[str], size: int = 400) -> Tokenizer:
    """At most `size` pieces, of which those of `special` come first."""
    texts = list(texts)
    learning = _tokenizer(models.WordPiece(unk_token=UNKNOWN))
    characters = sorted(
        {char for text in texts for char in learning.normalizer.normalize_str(text) if not char.isspace()}
    )
    known = [*special, *characters, *(f"##{char}" for char in characters)]
    learning.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=size, special_tokens=known, show_progress=False)
    )
    tokenizer = _tokenizer(models.WordPiece(learning.get_vocab(), unk_token=UNKNOWN))
    tokenizer.add_special_tokens(list(special))  # and no characters
    return tokenizer


def _tokenizer(model: models.WordPiece) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer
