"""Metrics as sums over examples: what the loop compares, the result says and the report gives an interval for is one computation. No torch."""

from finetune_trainer.scores.bootstrap import Interval, paired_intervals, resamples_of
from finetune_trainer.scores.score import Score, Sparse, Sums, mean, of_some, ratio, values

__all__ = [
    "Interval",
    "Score",
    "Sparse",
    "Sums",
    "mean",
    "of_some",
    "paired_intervals",
    "ratio",
    "resamples_of",
    "values",
]
