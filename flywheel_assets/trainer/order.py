"""The order of training: which row is seen in which step, fixed before the first one.

What belongs here: a pure function of lengths, batch size, epochs and seed. The trainer then walks it in sequence, so that a
training that was killed and resumed sees exactly the rows it would have seen.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

# Rows of similar length share a batch, because padding costs as much as text. Sorting inside pools of this many batches
# (not over the whole epoch) keeps the batches different from epoch to epoch.
POOL_BATCHES = 16


def training_order(lengths: Sequence[int], *, batch_size: int, epochs: int, seed: int) -> list[int]:
    """Indices of rows in the order they are trained on; every index occurs exactly `epochs` times.

    Steps are consecutive slices of `batch_size`; only the last one may be smaller. Rows that do not fill a batch at the end
    of an epoch go into the pool of the next.
    """
    dice = random.Random(seed)
    order: list[int] = []
    carried: list[int] = []
    for epoch in range(epochs):
        rows = list(range(len(lengths)))
        dice.shuffle(rows)
        rows = carried + rows
        carried = []
        if epoch < epochs - 1:
            spare = len(rows) % batch_size
            rows, carried = rows[: len(rows) - spare], rows[len(rows) - spare :]
        order.extend(_batched_by_length(rows, lengths, batch_size, dice))
    return order


def _batched_by_length(rows: list[int], lengths: Sequence[int], batch_size: int, dice: random.Random) -> list[int]:
    spare = len(rows) % batch_size
    full, rest = rows[: len(rows) - spare], rows[len(rows) - spare :]
    batches: list[list[int]] = []
    pool_size = POOL_BATCHES * batch_size
    for start in range(0, len(full), pool_size):
        pool = sorted(full[start : start + pool_size], key=lambda row: lengths[row], reverse=True)
        batches.extend(pool[i : i + batch_size] for i in range(0, len(pool), batch_size))
    dice.shuffle(batches)
    return [row for batch in batches for row in batch] + rest
