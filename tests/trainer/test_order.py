from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from flywheel_assets.trainer.order import training_order

LENGTHS = st.lists(st.integers(1, 900), min_size=1, max_size=90)


@given(LENGTHS, st.integers(1, 7), st.integers(1, 4), st.integers(0, 3))
def test_every_row_is_seen_once_an_epoch(lengths: list[int], batch_size: int, epochs: int, seed: int) -> None:
    order = training_order(lengths, batch_size=batch_size, epochs=epochs, seed=seed)
    assert Counter(order) == dict.fromkeys(range(len(lengths)), epochs)


def test_the_same_seed_gives_the_same_order_and_another_seed_another() -> None:
    lengths = list(range(50, 150))
    first = training_order(lengths, batch_size=4, epochs=2, seed=0)
    assert first == training_order(lengths, batch_size=4, epochs=2, seed=0)
    assert first != training_order(lengths, batch_size=4, epochs=2, seed=1)


def test_rows_of_similar_length_share_a_batch_so_that_little_is_padding() -> None:
    lengths = [40 + (37 * i) % 600 for i in range(96)]
    order = training_order(lengths, batch_size=4, epochs=1, seed=0)
    batches = [order[i : i + 4] for i in range(0, len(order), 4)]
    padded = sum(4 * max(lengths[row] for row in batch) for batch in batches)
    assert padded < 1.1 * sum(lengths)


def test_long_rows_are_not_all_seen_first() -> None:
    lengths = [10] * 48 + [500] * 48
    order = training_order(lengths, batch_size=4, epochs=1, seed=0)
    assert 0 < sum(lengths[row] == 500 for row in order[:48]) < 48
