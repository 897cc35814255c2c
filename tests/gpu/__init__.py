"""What is proved on a GPU, as no test of `make test` can: `python -m tests.gpu`, made for eight minutes of one H100 or H200,
and fails where it takes more.

It needs a checkout, and of packages those of the extra `trainer` (torch made for CUDA, transformers, peft, pyarrow, datasets, obstore and
what stands beside them in pyproject.toml), pydantic, accelerate for the peers, and bitsandbytes for nf4. Nothing has to be installed of the
project itself: `PYTHONPATH=.:crds:operator:trainer`. Nothing is downloaded: weights are drawn at random in the shapes of known models,
and data are words drawn at random, in texts whose lengths the figures say.

| | |
|---|---|
| `python -m tests.gpu` | everything; each proof is a process of its own, prints its figures as JSON lines, and says last what does not hold |
| `python -m tests.gpu llama resume` | these proofs |
| `python -m tests.gpu --tiny` | the same on small shapes and a CPU, where bars of speed and memory are left out: what `make test` runs |

Peers are transformers' Trainer, with peft beside it for adapters: the same weights, rows, precision and learning rate, batches padded
to their longest text, as its guide has it. The exit code is 1 where a figure is on the wrong side of its bar.
"""
