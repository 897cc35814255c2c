"""Each reason that a job can show has its place in the page about what to do, which is made from the reasons themselves."""

from __future__ import annotations

import re

import pytest

from finetune_api.exit_codes import EXIT_CODES, NEVER_RETRIED
from finetune_api.failures import CAUSES, REMEDIES, WAITED_FOR, FailureReason
from finetune_api.troubleshooting import troubleshooting

SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", troubleshooting(), re.MULTILINE | re.DOTALL))


def test_there_is_a_section_for_each_reason_and_no_other() -> None:
    assert list(SECTIONS) == list(FailureReason)


@pytest.mark.parametrize("reason", FailureReason)
def test_a_section_says_what_it_means_and_what_to_do(reason: FailureReason) -> None:
    assert set(CAUSES) == set(REMEDIES) == set(FailureReason)
    assert CAUSES[reason] in SECTIONS[reason]
    assert f"**What to do:** {REMEDIES[reason]}" in SECTIONS[reason]
    for sentence in (CAUSES[reason], REMEDIES[reason]):
        assert sentence[0].isupper() and sentence.endswith(".")


@pytest.mark.parametrize("reason", FailureReason)
def test_a_section_says_whether_the_job_goes_on(reason: FailureReason) -> None:
    section, code = SECTIONS[reason], EXIT_CODES.get(reason)
    assert ("The job waits, and goes on by itself" in section) is (reason in WAITED_FOR)
    assert ("the job fails at once" in section) is (code in NEVER_RETRIED)
    assert ("another attempt follows" in section) is (code is not None and code not in NEVER_RETRIED)
