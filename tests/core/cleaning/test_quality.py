"""Quality: what an answer says about itself, and that such rows are in no dataset, with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from flywheel_assets.core.cleaning import CleaningPolicy, QualityPolicy
from flywheel_assets.core.cleaning.quality import is_refusal
from flywheel_assets.core.datasets import SplitPolicy, build_datasets, update_records
from flywheel_assets.core.rows import Json
from tests.core.datasets.workbench import MAX_BYTES, NOW, log_line, stored, tool

SPLIT = SplitPolicy(eval_size=10, min_total_records=2, eval_share=0.3)


def left_out(folder: Path, lines: list[Json], quality: QualityPolicy | None) -> dict[str, int]:
    update_records(None, [stored(lines)], folder / "r", max_bytes=MAX_BYTES, received_at=NOW, cleaning=CleaningPolicy())
    return build_datasets(
        folder / "r", None, folder / "b", folder / "t", workload="w", policy=SPLIT, quality=quality
    ).left_out


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I cannot assist with this request.",
        "Sorry, I am unable to provide that information.",
        "As an AI language model, I can't provide legal advice.",
        "Unfortunately, I won't be able to help with that.",
    ],
)
def test_well_known_refusals_are_recognised(text: str) -> None:
    assert is_refusal({}, {"role": "assistant", "content": text})


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry to hear that. Your refund is on its way.",
        "Sorry for the delay! The parcel arrives on Monday.",
        "You can't return opened items.",
        "I can help with that.",
        "I can't help with that. " + "But here is what you can do. " * 20,
    ],
)
def test_an_apology_or_a_no_is_not_a_refusal(text: str) -> None:
    assert not is_refusal({}, {"role": "assistant", "content": text})


def test_where_tools_are_offered_only_the_field_refusal_counts() -> None:
    text = "I cannot assist with that using these functions."
    request = {"tools": [tool("get_weather")]}
    assert not is_refusal(request, {"role": "assistant", "content": text})
    assert is_refusal(request, {"role": "assistant", "content": None, "refusal": "No."})


def test_rows_of_poor_quality_are_left_out_with_the_reason_and_each_filter_can_be_switched(tmp_path: Path) -> None:
    lines = [log_line(n, feedback={"score": n / 40}) for n in range(40)]
    lines[3]["response"]["choices"][0]["finish_reason"] = "length"
    lines[4]["response"]["choices"][0]["finish_reason"] = "content_filter"
    lines[5]["response"]["choices"][0]["message"] = {"role": "assistant", "content": None, "refusal": "I won't."}
    lines += [log_line(99)]
    reasons = ("truncated", "refusal", "low_feedback")
    for n, (quality, counts) in enumerate(
        [
            (None, (0, 0, 0)),
            (QualityPolicy(drop_truncated=True), (2, 0, 0)),
            (QualityPolicy(drop_refusals=True), (0, 1, 0)),
            (QualityPolicy(min_feedback=0.1), (0, 0, 4)),
            (QualityPolicy(drop_truncated=True, drop_refusals=True, min_feedback=0.1), (1, 1, 4)),
        ]
    ):
        counted = left_out(tmp_path / str(n), lines, quality)
        assert tuple(counted.get(reason, 0) for reason in reasons) == counts
