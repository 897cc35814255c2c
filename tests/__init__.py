"""Tests of the FineTuneJob operator; `tests.cluster` makes the real servers they run against."""
