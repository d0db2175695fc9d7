"""The policy of a split: what flywheel.yaml says about it, as `split` and `exam_draw` follow it.

What belongs here: the fields and what they mean. What does not: what was fixed at the first build (`assignment.SplitTerms`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from flywheel_assets.core.records import DEFAULT_SOURCE


@dataclass(frozen=True, slots=True)
class SplitPolicy:
    """How records become eval, training and validation rows; the fields are those of `split` in flywheel.yaml.

    `eval_size` "auto" is planned at the first build. `eval_share` fixes the share of the eval side at the first build; None:
    `AUTO_EVAL_SHARE` of the conversations, or `eval_size` over the records then seen where that is a number. `draw` and
    `max_rows_per_conversation` None: what the first build fixed, `proportional` and `MAX_ROWS_PER_CONVERSATION`.
    `train_only_sources`: sources no exam is drawn from; None means every source but `traffic`. `limit` caps the training
    rows (and validation rows in proportion); None means all.
    """

    eval_size: int | Literal["auto"] = "auto"
    val_ratio: float = 0.1
    min_total_records: int = 50
    limit: int | None = None
    random_seed: int = 0
    strategy: str = "random"
    rare_class_rows: int = 5
    eval_share: float | None = None
    train_only_sources: tuple[str, ...] | None = None
    draw: str | None = None
    max_rows_per_conversation: int | None = None
    rare_class_floor: int = 0


def is_train_only(source: str, train_only: Sequence[str] | None) -> bool:
    """Whether no exam is drawn from a source; `train_only` names those, None: every one but `traffic`."""
    return source != DEFAULT_SOURCE if train_only is None else source in train_only
