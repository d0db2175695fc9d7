"""Every number of a decision, computed again by code that shares nothing with the package."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from flywheel_assets.core.rows import Answer, EvalRow, ToolCall, Variant
from flywheel_assets.core.statistics import tango_bounds
from tests.assets.conftest import Bench
from tests.recomputed import tango_bound, verify_decision


def often_right(candidate: str, variant: Variant, row: EvalRow) -> Answer | None:
    """Wrong in several ways on a share of the rows that depends on who answers."""
    chance = random.Random(f"{candidate} {variant} {row.row_id}").random()
    if chance > {"base": 0.5, "prefixed": 0.75, "customized": 0.97}[variant]:
        calls = row.reference.tool_calls
        broken = tuple(ToolCall(call.name, call.arguments[:-1] if chance > 0.98 else "{}") for call in calls)
        return Answer("no idea") if chance > 0.995 else Answer(None, broken or (ToolCall("close_ticket", "{}"),))
    return row.reference


@pytest.mark.parametrize("margin", [0.02, 0.1])
def test_every_number_of_a_decision_comes_out_again(bench: Bench, tmp_path: Path, margin: float) -> None:
    bench.platform.answers = often_right
    bench.content["split"] = {"eval_size": 200, "min_total_records": 50}
    bench.content["decision"] = {
        "gates": [{"metric": "function_name_and_args", "margin": margin}, {"metric": "args_f1", "margin": margin}]
    }
    bench.ingest(500)
    bench.turn()
    assert verify_decision(bench.flywheel.settings.home, "tickets") > 1_000


@pytest.mark.parametrize(("gained", "lost", "n"), [(3, 5, 100), (1, 12, 80), (20, 18, 300), (2, 2, 40)])
def test_tango_s_bound_is_the_one_of_the_maximised_likelihood(gained: int, lost: int, n: int) -> None:
    assert tango_bounds(gained, lost, n, alpha=0.05)[0] == pytest.approx(tango_bound(gained, lost, n, 0.05), abs=1e-5)
