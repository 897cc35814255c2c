"""Other settings of the platform reach what waits, perhaps for want of them, and move nothing that has run."""

from __future__ import annotations

from finetune_api.failures import FailureReason
from finetune_operator.worlds.protocol import StartTraining, StopTraining
from tests.unit.operator.story import Story


def test_what_waits_is_made_anew_with_the_present_settings() -> None:
    story = Story(runId="r").starts().is_held(FailureReason.ADMISSION_DENIED, "no such user may run here")
    story.changes_training(outdated=True)
    assert [type(action) for action in story.actions] == [StartTraining, StopTraining]
    assert (story.status.reason, story.status.message) == (
        "Restarting",
        "The platform's settings for all training pods have changed; a new pod replaces the one that waits.",
    )
    story.looks()
    assert [type(action) for action in story.actions] == [StartTraining, StopTraining, StartTraining]
    assert story.status.run is not None
    assert story.status.run.id == "r"


def test_what_has_run_is_left_as_it_is() -> None:
    running = Story().starts().runs().changes_training(outdated=True)
    between = Story().starts().runs().ends(20).changes_training(outdated=True)
    for story in (running, between):
        assert not any(isinstance(action, StopTraining) for action in story.actions)


def test_a_spec_that_cannot_be_read_keeps_what_it_has() -> None:
    story = Story().starts().is_edited(task="of a newer version").changes_training(outdated=True)
    assert not any(isinstance(action, StopTraining) for action in story.actions)
