"""The order of training."""

from itertools import islice

import numpy as np
from hypothesis import given, strategies as st

from finetune_trainer.engine.batches import LengthBucketedBatches

LENGTHS = st.builds(
    lambda count, longest, seed: np.random.default_rng(seed).integers(1, longest, size=count, endpoint=True),
    count=st.integers(1, 5000),
    longest=st.integers(1, 512),
    seed=st.integers(0, 1000),
)
SIZES = st.integers(1, 64)
SEEDS = st.integers(0, 2**31 - 1)


def batches(lengths, size, seed, epoch=0):
    return [batch.tolist() for batch in LengthBucketedBatches(lengths, size, seed).epoch(epoch)]


@given(LENGTHS, SIZES, SEEDS, st.integers(0, 100))
def test_each_example_comes_once_an_epoch_in_full_batches_but_one(lengths, size, seed, epoch):
    order = batches(lengths, size, seed, epoch)

    assert sorted(index for batch in order for index in batch) == list(range(len(lengths)))
    assert len(order) == len(LengthBucketedBatches(lengths, size, seed))
    small = [batch for batch in order if len(batch) < size]
    assert len(small) <= 1


@given(LENGTHS, SIZES, SEEDS, st.integers(0, 100), st.data())
def test_training_resumes_after_any_step(lengths, size, seed, epoch, data):
    both = batches(lengths, size, seed, epoch) + batches(lengths, size, seed, epoch + 1)
    done = data.draw(st.integers(0, len(both) // 2))

    np.random.random(data.draw(st.integers(0, 5)))
    rest = LengthBucketedBatches(lengths, size, seed).after(epoch * len(both) // 2 + done)

    assert [batch.tolist() for batch in islice(rest, len(both) - done)] == both[done:]


@given(st.integers(1, 16), SEEDS)
def test_no_two_epochs_and_no_two_seeds_share_their_order(size, seed):
    lengths = np.random.default_rng(0).integers(4, 64, size=200)
    first = batches(lengths, size, seed)

    assert batches(lengths, size, seed, epoch=1) != first
    assert batches(lengths, size, seed + 1) != first


def test_padding_costs_less_than_three_percent_on_lengths_as_sentences_have_them():
    lengths = np.random.default_rng(0).gamma(6, 9, size=4000).astype(np.int64) + 4

    padded = sum(len(batch) * lengths[batch].max() for batch in batches(lengths, 8, seed=1))
    random_order = sum(8 * lengths[start : start + 8].max() for start in range(0, 4000, 8))

    assert padded < 1.03 * lengths.sum()
    assert random_order > 1.5 * lengths.sum()


def test_batches_of_like_length_do_not_come_in_the_order_of_their_length():
    lengths = np.arange(400, dtype=np.int64)

    means = [np.mean(lengths[batch]) for batch in batches(lengths, 8, seed=3)]

    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.5
