"""What a verdict may be trusted for."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel_assets.core.comparison import Arm, ArmResult, Comparison, compare
from flywheel_assets.core.decisions import Decision, InvalidEvidence, InvalidGate, Verdict, decide
from flywheel_assets.core.gates import Gate, GateKind, default_gates
from flywheel_assets.core.predictions import Score
from flywheel_assets.core.rows import Variant, WorkloadType

NAME = "function_name_and_args"


def bare(columns: list[Any], *, metric: str = NAME, reference: Any = None, clusters: Any = None) -> Comparison:
    """A comparison with nothing in it but the scores of some arms on one metric."""
    n = len(columns[0])
    row_ids = tuple(f"r{i}" for i in range(n))
    arms = tuple(
        Arm(
            f"m{i}",
            Variant.BASE,
            "ok",
            None,
            None,
            "v",
            None,
            None,
            row_ids,
            {metric: np.asarray(x, float)},
            np.zeros(n, bool),
        )
        for i, x in enumerate(columns)
    )
    right = np.ones(n) if reference is None else np.asarray(reference, float)
    return Comparison(
        workload="w",
        workload_type=WorkloadType.TOOL_CALLING,
        dataset_version="d",
        row_ids=row_ids,
        clusters=tuple(map(str, range(n) if clusters is None else clusters)),
        reference={metric: right},
        reference_scores={metric: Score(1.0, 1.0, 1.0, n)},
        arms=arms,
    )


def scores(n: int, lost: int) -> Any:
    return np.concatenate([np.zeros(lost), np.ones(n - lost)])


def test_a_perfect_candidate_on_enough_rows_is_promoted(evidence: Any) -> None:
    rows = evidence.rows(100, silent=80)
    decision = decide(evidence.compare(rows, evidence.arm(rows)))
    assert decision.to_status() == {
        "verdict": "promote",
        "candidate": "small",
        "variant": "customized",
        "needed_rows": None,
        "needed_records": None,
        "reasons": list(decision.reasons),
    }
    assert decision.reasons[0] == "small (customized) may replace the teacher: with 95% confidence it meets every gate."
    assert len(decision.reasons) == 5 and "no_call is 1.000 against 1.000 on 80 rows" in decision.reasons[2]


@pytest.mark.parametrize("n", [31, 58, 59, 200])
def test_a_perfect_candidate_is_promoted_from_the_row_on_that_excludes_the_margin(n: int) -> None:
    decision = decide(bare([np.ones(n)]), [Gate(NAME, 0.05)])
    assert decision.verdict is (Verdict.PROMOTE if n >= 59 else Verdict.INCONCLUSIVE)
    assert decision.needed_rows is None or decision.needed_rows >= 59 - n


def test_a_candidate_shown_to_be_worse_keeps_the_teacher_and_says_by_how_much(evidence: Any) -> None:
    rows = evidence.rows(60)
    hole = ArmResult("other", Variant.BASE, "failed", "out of memory")
    decision = decide(evidence.compare(rows, evidence.arm(rows, lambda i: i % 2 == 0), hole))
    assert decision.verdict is Verdict.KEEP and decision.candidate is None and decision.needed_rows is None
    assert "small (customized): function_name_and_args is 0.500 against 1.000 on 60 rows" in decision.reasons[1]
    assert decision.reasons[2] == "Not judged: other (base) is failed: out of memory"
    assert decision.evidence["holes"][0]["candidate"] == "other"


def test_a_bound_that_is_nearly_nothing_is_said_without_a_sign_that_means_loss() -> None:
    said = " ".join(decide(bare([scores(200, 1)]), [Gate(NAME, 0.05)]).reasons)
    assert "and +0.000" in said and "-0.000" not in said


def test_keep_names_the_gate_it_rests_on_and_not_one_with_too_few_conversations(evidence: Any) -> None:
    rows = evidence.rows(60, silent=14)
    decision = decide(evidence.compare(rows, evidence.arm(rows, lambda i: i >= 60 or i % 2 == 0)))
    assert decision.verdict is Verdict.KEEP
    assert "function_name_and_args is 0.500" in decision.reasons[1]
    assert "too few to judge" not in " ".join(decision.reasons)


def test_too_few_rows_are_inconclusive_and_say_how_many_more_by_gate(evidence: Any) -> None:
    rows = evidence.rows(40, silent=40)
    decision = decide(evidence.compare(rows, evidence.arm(rows, lambda i: i in (0, 50))))
    assert decision.verdict is Verdict.INCONCLUSIVE and decision.candidate is None
    missing = decision.evidence["closest"]["missing"]
    # Calls and no calls are different rows, half of the traffic each: so many of either come with twice as many eval rows.
    assert set(missing) == {NAME, "no_call", "answered"} and decision.needed_rows == 2 * max(missing.values())
    assert any(f"About {missing[NAME]} more rows that '{NAME}' applies to" in reason for reason in decision.reasons)


def test_gates_on_the_same_rows_share_the_rows_they_need(evidence: Any) -> None:
    rows = evidence.rows(40)
    compared = evidence.compare(rows, evidence.arm(rows, lambda i: i == 0))
    both = decide(compared, [Gate(NAME, 0.05), Gate("bfcl_ast", 0.05)])
    missing = both.evidence["closest"]["missing"]
    assert len(missing) == 2 and both.needed_rows == max(missing.values())


@pytest.mark.parametrize(("n", "clusters"), [(29, 29), (300, 29)])
def test_fewer_than_thirty_conversations_settle_nothing(evidence: Any, n: int, clusters: int) -> None:
    rows = evidence.rows(n, clusters=clusters)
    for fails in (lambda i: False, lambda i: True):
        decision = decide(evidence.compare(rows, evidence.arm(rows, fails)))
        assert decision.verdict is Verdict.INCONCLUSIVE
        assert "29 independent conversations are too few to judge" in " ".join(decision.reasons)
        assert decision.needed_rows is not None and decision.needed_rows >= n / 29


def test_where_only_conversations_lack_no_more_rows_are_asked_for() -> None:
    for lost in (0, 28):
        decision = decide(bare([scores(28, lost)]), [Gate(NAME, 0.2)])
        assert decision.verdict is Verdict.INCONCLUSIVE
        assert decision.needed_rows == 2


def test_the_needed_rows_would_indeed_be_enough() -> None:
    """An observed 5% loss against a margin of 10%: with the rows asked for, the same share passes."""
    n = 60
    decision = decide(bare([scores(n, 3)]), [Gate(NAME, 0.1)])
    assert decision.verdict is Verdict.INCONCLUSIVE and decision.needed_rows is not None
    total = n + decision.needed_rows
    assert total < 1000
    assert decide(bare([scores(total, total // 20)]), [Gate(NAME, 0.1)]).verdict is Verdict.PROMOTE


@given(n=st.integers(30, 400), share=st.floats(0, 1), margin=st.floats(0.01, 0.4), arms=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_only_an_inconclusive_verdict_asks_for_rows_and_never_for_absurdly_many(
    n: int, share: float, margin: float, arms: int
) -> None:
    decision = decide(bare([scores(n, round(n * share))] * arms), [Gate(NAME, margin)])
    if decision.verdict is Verdict.INCONCLUSIVE:
        assert decision.needed_rows is not None and 1 <= decision.needed_rows <= max(n, 60 / margin**2)
    else:
        assert decision.needed_rows is None


@given(
    lost=st.lists(st.integers(0, 60), min_size=1, max_size=3),
    margins=st.tuples(st.floats(0.005, 0.6), st.floats(0.005, 0.6)),
    continuous=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_a_wider_margin_never_makes_a_verdict_worse(lost: list[int], margins: tuple[float, float], continuous: bool) -> None:
    arms = [scores(120, k) * (0.99 if continuous else 1.0) for k in lost]
    order = [Verdict.KEEP, Verdict.INCONCLUSIVE, Verdict.PROMOTE]
    strict, lenient = (order.index(decide(bare(arms), [Gate(NAME, margin)]).verdict) for margin in sorted(margins))
    assert strict <= lenient


def test_identical_evidence_gives_an_identical_decision(evidence: Any) -> None:
    rows = evidence.rows(80, silent=70)

    def once() -> Decision:
        return decide(evidence.compare(rows, evidence.arm(rows, lambda i: i == 1), evidence.arm(rows, variant=Variant.BASE)))

    assert once() == once() and once().data_version() == once().data_version()


def test_a_comparison_read_back_from_json_decides_the_same(evidence: Any) -> None:
    rows = evidence.rows(80, silent=70)
    compared = evidence.compare(rows, evidence.arm(rows, lambda i: i == 1))
    read = Comparison.from_json(orjson.loads(orjson.dumps(compared.to_json())))
    gates = [Gate(NAME, 0.05), Gate("args_f1", 0.05)]
    assert decide(read, gates) == decide(compared, gates)


def test_a_decision_survives_json_and_holds_what_it_used(evidence: Any) -> None:
    rows = evidence.rows(80)
    decision = decide(evidence.compare(rows, evidence.arm(rows)), [Gate("args_f1", 0.04)], alpha=0.1, power=0.9)
    assert Decision.from_json(json.loads(json.dumps(decision.to_json()))) == decision
    assert Decision.from_json(orjson.loads(orjson.dumps(decision.to_json()))) == decision
    used = decision.evidence["settings"]
    assert (used["gates"], used["alpha"], used["power"]) == (
        [{"metric": "args_f1", "limit": 0.04, "kind": "non_inferior", "suite": None, "against": "reference"}],
        0.1,
        0.9,
    )
    gate = decision.evidence["arms"][0]["gates"][0]
    assert {"score", "reference_score", "low", "high", "p_non_inferior", "discordance", "n", "clusters", "method"} <= set(
        gate
    )
    assert decision.evidence["dataset_version"] == "d1"


def test_every_gate_must_pass(evidence: Any) -> None:
    rows = evidence.rows(200, silent=200)
    calls_always = evidence.arm(rows, lambda i: i >= 200)
    decision = decide(evidence.compare(rows, calls_always))
    assert decision.verdict is Verdict.KEEP
    assert "no_call is 0.000 against 1.000" in decision.reasons[1]


def test_the_default_gates_judge_silence_only_where_silence_is_expected(evidence: Any) -> None:
    both = default_gates(evidence.compare(evidence.rows(5, silent=5)))
    assert [gate.metric for gate in both] == [NAME, "no_call", "answered"]
    assert [gate.metric for gate in default_gates(evidence.compare(evidence.rows(5)))] == [NAME]


def test_several_arms_are_held_to_a_stricter_level_each() -> None:
    # 59 rows without a loss pass alone (p just under 0.05), but not as one arm of two whose other one fails.
    alone = decide(bare([scores(59, 0)]), [Gate(NAME, 0.05)])
    among = decide(bare([scores(59, 0), scores(59, 30)]), [Gate(NAME, 0.05)])
    assert (alone.verdict, among.verdict) == (Verdict.PROMOTE, Verdict.INCONCLUSIVE)
    assert among.evidence["closest"]["candidate"] == "m0"


def test_the_winner_has_the_best_lower_bound_then_is_cheaper_then_simpler(evidence: Any) -> None:
    rows = evidence.rows(300)

    def winner(*arms: ArmResult) -> str:
        decision = decide(evidence.compare(rows, *arms))
        return f"{decision.candidate} {decision.variant}"

    assert (
        winner(evidence.arm(rows, lambda i: i == 0, candidate="a"), evidence.arm(rows, candidate="b", latency_ms=99.0))
        == "b customized"
    )
    assert (
        winner(evidence.arm(rows, candidate="a", cost=2.0), evidence.arm(rows, candidate="b", cost=1.0, latency_ms=99.0))
        == "b customized"
    )
    assert winner(evidence.arm(rows, candidate="a"), evidence.arm(rows, candidate="b", variant=Variant.BASE)) == "b base"


def test_latency_enters_a_decision_only_through_a_gate_on_it(evidence: Any) -> None:
    """Another machine, or another hour, measures another latency of the same answers."""
    rows = evidence.rows(120)

    def decided(first: float, second: float, gates: tuple[Gate, ...] = (Gate(NAME, 0.1),)) -> Decision:
        arms = [evidence.arm(rows, candidate="a", latency_ms=first), evidence.arm(rows, candidate="b", latency_ms=second)]
        return decide(evidence.compare(rows, *arms), gates)

    slow, fast = decided(99.0, 10.0), decided(10.0, 99.0)
    assert slow.candidate == fast.candidate == "a"
    assert slow.data_version() == fast.data_version()
    gates = (Gate(NAME, 0.1), Gate("latency_p95_ms", 50.0, GateKind.BUDGET))
    assert decided(99.0, 10.0, gates).candidate == "b"
    assert decided(99.0, 10.0, gates).data_version() != decided(10.0, 99.0, gates).data_version()


def test_neither_versions_of_artifacts_nor_the_wording_of_a_fault_are_part_of_what_a_decision_means(evidence: Any) -> None:
    rows = evidence.rows(80, silent=70)

    def version(made: str, reason: str) -> str:
        arm = replace(evidence.arm(rows), version=made)
        hole = ArmResult("other", Variant.BASE, "failed", reason)
        compared = compare(
            "router", WorkloadType.TOOL_CALLING, rows, [arm, hole], dataset_version=made, dataset_meaning="lines"
        )
        assert decide(compared).evidence["arms"][0]["version"] == made
        return decide(compared).data_version()

    assert version("v1", "port 8001 refused") == version("v2", "port 8002 refused")


def test_an_answer_a_metric_cannot_read_counts_as_wrong_for_a_gate() -> None:
    unreadable = np.ones(100)
    unreadable[:50] = np.nan
    decision = decide(bare([unreadable], metric="nemo_function_name_and_args"), [Gate("nemo_function_name_and_args", 0.05)])
    assert decision.verdict is Verdict.KEEP
    assert decision.evidence["arms"][0]["gates"][0]["score"] == 0.5


class TestInvalidEvidence:
    def test_no_evaluated_arm(self, evidence: Any) -> None:
        hole = ArmResult("small", Variant.BASE, "failed", "out of memory")
        with pytest.raises(
            InvalidEvidence, match=r"'router': no variant was evaluated \(small \(base\): failed, out of memory\)"
        ):
            decide(evidence.compare(evidence.rows(40), hole))

    def test_no_rows(self, evidence: Any) -> None:
        with pytest.raises(InvalidEvidence, match="no row that a gate applies to"):
            decide(evidence.compare([]))

    def test_an_arm_that_was_asked_other_rows(self, evidence: Any) -> None:
        rows = evidence.rows(41)
        with pytest.raises(InvalidEvidence, match=r"asked other rows than the eval set d1 holds \(2 differ\)"):
            decide(evidence.compare(rows[:40], evidence.arm([*rows[:39], rows[40]])))

    def test_more_errors_than_are_accepted(self, evidence: Any) -> None:
        rows = evidence.rows(100)
        decide(evidence.compare(rows, evidence.arm(rows, errors=5)))
        with pytest.raises(
            InvalidEvidence, match=r"6 of 100 rows of small \(customized\) errored \(6.0%; 5.0% is accepted\)"
        ):
            decide(evidence.compare(rows, evidence.arm(rows, errors=6)))

    def test_a_gate_that_no_row_can_answer(self, evidence: Any) -> None:
        rows = evidence.rows(40)
        with pytest.raises(InvalidEvidence, match="gate 'no_call': it applies to no row"):
            decide(evidence.compare(rows, evidence.arm(rows)), [Gate("no_call", 0.05)])

    @pytest.mark.parametrize(
        ("gates", "message"),
        [
            (
                [Gate("accuracy", 0.05)],
                "gate 'accuracy': no such metric here. Metrics of tool_calling workloads: function_name,",
            ),
            ([Gate(NAME, 0.05), Gate(NAME, 0.1)], "named twice"),
            ([Gate(NAME, 1.5)], "the margin is 1.5; it must lie between 0 and 1"),
        ],
    )
    def test_a_gate_nobody_can_judge_is_a_fault_of_the_settings(self, evidence: Any, gates: Any, message: str) -> None:
        rows = evidence.rows(40)
        with pytest.raises(InvalidGate, match=message):
            decide(evidence.compare(rows, evidence.arm(rows)), gates)


@pytest.mark.parametrize(("arms", "reference_share"), [(1, 1.0), (3, 1.0), (1, 0.9), (3, 0.9)])
def test_candidates_that_lie_at_the_margin_are_promoted_no_more_often_than_alpha(arms: int, reference_share: float) -> None:
    rng = np.random.default_rng(17)
    n, margin, trials = 150, 0.1, 400
    promoted = 0
    for _ in range(trials):
        reference = (rng.random(n) < reference_share).astype(float)
        # Loses a right row with probability p, wins a wrong one with probability 0.5; net loss is the margin.
        p = (margin + 0.5 * (1 - reference_share)) / reference_share
        columns = [np.where(reference == 1, rng.random(n) >= p, rng.random(n) < 0.5).astype(float) for _ in range(arms)]
        promoted += decide(bare(columns, reference=reference), [Gate(NAME, margin)]).verdict is Verdict.PROMOTE
    assert promoted / trials <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / trials)


def test_rows_of_few_conversations_do_not_pass_for_many(evidence: Any) -> None:
    rows = evidence.rows(300, clusters=40)
    fails = lambda i: i % 40 == 0  # noqa: E731  one conversation of forty is wrong throughout
    decision = decide(evidence.compare(rows, evidence.arm(rows, fails)), [Gate(NAME, 0.07)])
    independent = [replace(row, cluster=row.row_id) for row in rows]
    assert decision.verdict is Verdict.INCONCLUSIVE
    assert (
        decide(evidence.compare(independent, evidence.arm(independent, fails)), [Gate(NAME, 0.07)]).verdict
        is Verdict.PROMOTE
    )


def test_a_verdict_on_other_rows_than_traffic_says_which(evidence: Any) -> None:
    rows = evidence.rows(40)
    compared = evidence.compare(rows, evidence.arm(rows))

    mixed = decide(replace(compared, eval_sources={"hermes": 10, "traffic": 30}))
    imported = decide(replace(compared, eval_sources={"hermes": 40}))
    traffic = decide(replace(compared, eval_sources={"traffic": 40}))

    assert "Examined on rows of several sources, 30 of traffic, 10 of hermes: the verdict holds for this mix of them." in (
        mixed.reasons
    )
    assert "Examined on rows that are no production traffic: 40 of hermes." in imported.reasons
    assert not any("Examined" in reason for reason in traffic.reasons)
    assert mixed.evidence["eval_sources"] == {"hermes": 10, "traffic": 30}
    assert len({mixed.data_version(), imported.data_version(), traffic.data_version()}) == 3
