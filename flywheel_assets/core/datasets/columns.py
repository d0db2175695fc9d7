"""The columns of the index that decide about sides and draws, as arrays over all rows of a records folder.

What belongs here: reading them. What does not: the index itself (`index`), and deciding (`split`, `exam_draw`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flywheel_assets.core.datasets.index import Array, codes, conversations, near_keys, numbers, read_dead
from flywheel_assets.core.datasets.policy import SplitPolicy, is_train_only
from flywheel_assets.core.datasets.segments import Segment


@dataclass(frozen=True, slots=True)
class IndexColumns:
    """The columns of a records folder that splitting reads, one value a row; memory is some 70 bytes a row.

    `near` (rows x keys) adds 8 bytes for each key near-duplicates are known by.
    """

    rows: int
    superseded: Array
    duplicates: Array
    supported: Array
    train_only: Array
    conversation: Array
    prompt: Array
    session: Array
    near: Array
    cut_off: Array
    refusal: Array
    feedback: Array
    timestamp: Array
    kinds: Array
    kind_names: list[str]
    label: Array
    answer_size: Array
    several_turns: Array
    source_counts: dict[str, int]
    sources: Array
    source_names: list[str]

    @classmethod
    def read(cls, records: Path, segments: Sequence[Segment], policy: SplitPolicy) -> IndexColumns:
        """Read them from the index."""
        superseded, duplicates = read_dead(records)
        unsupported, unsupported_names = codes(records, segments, "unsupported")
        sources, source_names = codes(records, segments, "source")
        kinds, kind_names = codes(records, segments, "kind")
        train_only = [name for name in source_names if is_train_only(name, policy.train_only_sources)]
        supported = np.isin(unsupported, [code for code, name in enumerate(unsupported_names) if not name])
        return cls(
            rows=len(kinds),
            superseded=superseded,
            duplicates=duplicates,
            supported=supported,
            train_only=np.isin(sources, [source_names.index(name) for name in train_only]),
            conversation=conversations(records, segments),
            prompt=numbers(records, segments, "prompt", np.uint64),
            session=numbers(records, segments, "session", np.uint64),
            near=near_keys(records, segments),
            cut_off=numbers(records, segments, "cut_off", np.bool_),
            refusal=numbers(records, segments, "refusal", np.bool_),
            feedback=numbers(records, segments, "feedback", np.float64),
            timestamp=numbers(records, segments, "timestamp", np.float64),
            kinds=kinds,
            kind_names=kind_names,
            label=numbers(records, segments, "label", np.uint64),
            answer_size=numbers(records, segments, "answer_size", np.int32),
            several_turns=numbers(records, segments, "user_turns", np.int32) > 1,
            source_counts=dict(zip(source_names, np.bincount(sources, minlength=len(source_names)).tolist(), strict=True)),
            sources=sources,
            source_names=source_names,
        )
