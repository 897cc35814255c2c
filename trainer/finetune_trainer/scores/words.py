"""Words of texts in any script: what blanks part, and each character of a script that writes none between words."""

from __future__ import annotations

import re

WITHOUT_BLANKS = re.compile(
    "["
    "\u0e00-\u0e7f\u0e80-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # kana
    "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese characters
    "]"
)
"""A character of a script without blanks."""


def split(text: str) -> list[str]:
    """The words of `text`, punctuation being part of them."""
    return WITHOUT_BLANKS.sub(r" \g<0> ", text).split()
