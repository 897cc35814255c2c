"""One figure of a measurement as a JSON line."""

from __future__ import annotations

import json


def emit(name: str, value: float, unit: str, *, peer: str | None = None, ratio: float | None = None) -> None:
    """Print `{name, value, unit, peer, ratio}`; `ratio` is ours divided by the peer's, of the same run on the same machine."""
    figure = {"name": name, "value": round(value, 4), "unit": unit, "peer": peer, "ratio": ratio and round(ratio, 3)}
    print(json.dumps(figure), flush=True)
