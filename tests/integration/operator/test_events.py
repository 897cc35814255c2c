"""Events are accepted by the API server whatever alphabet they are written in: it counts bytes, and people count characters."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from finetune_operator.worlds.kube.events import event_of
from finetune_operator.worlds.protocol import Announcement, Key
from tests.cluster.control_plane import ControlPlane

LONG = {
    "Latin": "The data cannot be read. ",
    "Latin with an accent each": "é",
    "Chinese": "数据无法读取。",
    "Japanese": "データを読み取れません。",
    "Korean": "데이터를 읽을 수 없습니다. ",
    "Arabic": "تعذرت قراءة البيانات. ",
    "Hindi": "डेटा पढ़ा नहीं जा सकता। ",
    "emoji": "🤖👩‍👩‍👧",
}


@pytest.mark.parametrize("words", LONG.values(), ids=LONG.keys())
def test_a_long_message_is_cut_between_characters_to_what_the_api_server_takes(
    words: str, control_plane: ControlPlane
) -> None:
    for shift in range(4):  # each place at which the limit may fall in a character
        message = "." * shift + words * 1000
        note = noted(message, control_plane)
        assert note.endswith("…")
        assert message.startswith(note[:-1])
        assert 1024 - 3 <= len(note.encode()) <= 1024


@pytest.mark.parametrize("message", ["x" * 1024, "数" * 341 + "x", ""], ids=["Latin", "Chinese", "empty"])
def test_a_message_that_fits_stays_as_it_is(message: str, control_plane: ControlPlane) -> None:
    assert noted(message, control_plane) == message


def noted(message: str, cluster: ControlPlane) -> str:
    """The note of an event with this message, as the API server has it."""
    said = Announcement("Warning", "DataInvalid", message)
    event = event_of(Key("FineTuneJob", "default", "demo"), "uid", said, datetime.now(UTC))
    note: str = cluster.api.post("/apis/events.k8s.io/v1/namespaces/default/events", event).get("note", "")
    return note
