"""Whose token it is: asked of the API server, but not at each report, and not by whoever floods us."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_operator.worlds.kube import bearer
from finetune_operator.worlds.kube.bearer import (
    AUDIENCE,
    REFUSED_SECONDS,
    REMEMBERED_SECONDS,
    REVIEWS_PER_SECOND,
    Pod,
    Tokens,
    TooManyReviews,
)
from finetune_operator.worlds.kube.client import Object

POD = Pod("ns", "demo-r-x", "uid-1")
GENUINE: Object = {
    "authenticated": True,
    "audiences": [AUDIENCE],
    "user": {
        "username": "system:serviceaccount:ns:default",
        "extra": {
            "authentication.kubernetes.io/pod-name": ["demo-r-x"],
            "authentication.kubernetes.io/pod-uid": ["uid-1"],
        },
    },
}


class Reviewer:
    """The API server, and a clock."""

    def __init__(self) -> None:
        self.status: Object = GENUINE
        self.asked: list[Object] = []
        self.now = 1000.0

    async def create(self, path: str, body: Object) -> Object:
        assert path == "/apis/authentication.k8s.io/v1/tokenreviews"
        self.asked.append(body["spec"])
        return {"status": self.status}


@pytest.fixture
def reviewer() -> Reviewer:
    return Reviewer()


@pytest.fixture
def tokens(reviewer: Reviewer) -> Tokens:
    return Tokens(reviewer, lambda: reviewer.now)  # type: ignore[arg-type]


async def test_the_pod_is_the_one_that_the_api_server_names(reviewer: Reviewer, tokens: Tokens) -> None:
    assert await tokens.pod_of("t") == POD
    assert reviewer.asked == [{"token": "t", "audiences": [AUDIENCE]}]


@pytest.mark.parametrize(
    "changes",
    [
        {"authenticated": False},
        {"audiences": ["https://kubernetes.default.svc"]},
        {"audiences": None},
        {"user": GENUINE["user"] | {"username": "system:node:n"}},
        {"user": GENUINE["user"] | {"extra": {}}},
        {"user": None},
    ],
    ids=str,
)
async def test_anything_less_is_nobody(reviewer: Reviewer, tokens: Tokens, changes: dict[str, Any]) -> None:
    reviewer.status = GENUINE | changes
    assert await tokens.pod_of("t") is None


async def test_an_answer_is_remembered_for_a_while_and_a_refusal_for_less(reviewer: Reviewer, tokens: Tokens) -> None:
    for seconds in (0, REMEMBERED_SECONDS - 1, 1):
        reviewer.now += seconds
        assert await tokens.pod_of("t") == POD
    assert len(reviewer.asked) == 2
    reviewer.status = {"authenticated": False}
    for seconds in (0, REFUSED_SECONDS - 1, 1):
        reviewer.now += seconds
        assert await tokens.pod_of("other") is None
    assert len(reviewer.asked) == 4


async def test_only_so_many_are_remembered(reviewer: Reviewer, tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bearer, "REMEMBERED", 2)
    for token in ("a", "b", "c", "c", "b", "a"):
        await tokens.pod_of(token)
    assert [asked["token"] for asked in reviewer.asked] == ["a", "b", "c", "a"]


async def test_the_api_server_is_asked_only_so_often(reviewer: Reviewer, tokens: Tokens) -> None:
    for number in range(int(REVIEWS_PER_SECOND)):
        await tokens.pod_of(f"t{number}")
    with pytest.raises(TooManyReviews):
        await tokens.pod_of("one too many")
    assert await tokens.pod_of("t0") == POD  # which is known
    reviewer.now += 2 / REVIEWS_PER_SECOND
    assert await tokens.pod_of("one too many") == POD
