"""Commands as OpenShift runs containers: by a user that has a number and no name, in group 0, without any right of root's."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping

ANY_USER = 1_000_680_000
"""From the range of some namespace."""


def as_any_user() -> list[str]:
    """Goes before the command. Empty where this process may not change its user: then it is no more than a user itself."""
    setpriv = shutil.which("setpriv")
    if setpriv is None or os.geteuid() != 0:
        return []
    # It may read everything, as this Python may lie in root's home, but writes only what others may.
    rights = "-all,+dac_read_search"
    identity = [f"--reuid={ANY_USER}", "--regid=0", "--clear-groups"]
    return [setpriv, *identity, f"--inh-caps={rights}", f"--ambient-caps={rights}", "--no-new-privs", "--"]


def nameless(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without the user's name in it."""
    return {name: value for name, value in environment.items() if name not in ("USER", "LOGNAME", "LNAME", "USERNAME")}
