"""`make e2e`: makes images and programs ready, starts a cluster of two real nodes, and runs the tests of this folder beside it.

Further arguments are pytest's: `python -m tests.e2e -k model`.
"""

import sys

from tests.cluster.node import run_with_node

BESIDE = ("-n", "4", "--dist", "loadfile")
"""Each file on its own, as most of their time is waiting for pods."""

sys.exit(run_with_node([sys.executable, "-m", "pytest", "tests/e2e", "--timeout=1800", "-v", *BESIDE, *sys.argv[1:]]))
