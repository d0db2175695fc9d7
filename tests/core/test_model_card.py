"""The model card: every number from the evidence, nothing of a row, and equal evidence gives an equal card."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml

from flywheel_assets.core.cleaning import CleaningPolicy
from flywheel_assets.core.comparison import Comparison
from flywheel_assets.core.decisions import Decision, decide
from flywheel_assets.core.gates import Gate, GateKind
from flywheel_assets.core.model_card import CardFacts, model_card
from flywheel_assets.core.payload import findings
from flywheel_assets.core.rows import Variant
from tests.report_scene import GATES, shop

WINNER = "qwen2.5-0.5b"
TRAINING: dict[str, Any] = {
    "rows": {"used": 812, "too_long": 0, "not_drawn": 0},
    "validation": {"rows": 40, "loss_before": 1.25, "loss_after": 0.5, "too_long": 0},
    "steps": 203,
    "device": {"kind": "cuda", "name": "NVIDIA H100 of host gpu-17", "dtype": "bfloat16"},
    "hyperparameters": {"epochs": 1, "adapter_dim": 16, "learning_rate": 0.0001, "save_steps": 50},
}


@pytest.fixture(scope="module")
def compared() -> Comparison:
    return shop().comparison


@pytest.fixture(scope="module")
def decided(compared: Comparison) -> Decision:
    decision = decide(compared, GATES)
    assert (decision.candidate, decision.variant) == (WINNER, Variant.CUSTOMIZED)
    return decision


@pytest.fixture
def facts(compared: Comparison, decided: Decision) -> CardFacts:
    return CardFacts(
        repository="acme/flywheel-shop-qwen",
        decision=decided,
        comparison=compared,
        base_model="acme/qwen",
        license="apache-2.0",
        derived_from=None,
        training=TRAINING,
        versions={"decision": "0123456789abcdef", "adapter": "fedcba9876543210"},
        approved_on="2026-11-03",
        expires="2026-12-03",
        files=["adapter.gguf", "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja"],
    )


def rows_of(card: str, heading: str) -> list[list[str]]:
    """The table under a heading, cell by cell."""
    section = card.split(f"\n## {heading}")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_front_matter_is_yaml_that_a_hub_reads(facts: CardFacts) -> None:
    front = yaml.safe_load(model_card(facts).split("---\n")[1])
    assert front["license"] == "apache-2.0" and front["base_model"] == "acme/qwen"
    assert front["library_name"] == "peft" and "lora" in front["tags"]


def test_what_nobody_said_is_unknown_and_not_guessed(facts: CardFacts) -> None:
    card = model_card(replace(facts, license=None, base_model=None))
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["license"] == "unknown" and "base_model" not in front
    assert "whose id on a hub was not given" in card and "Licence of the base model: unknown" in card


def test_every_variant_stands_beside_the_teacher_with_its_interval(facts: CardFacts, compared: Comparison) -> None:
    header, _, *rows = rows_of(model_card(facts), "Evaluation")
    by_name = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert list(by_name) == ["teacher (reference)", "base model", "base model with a few-shot prefix", "this adapter"]
    assert header[1] == "`function_name_and_args`"
    arm = next(arm for arm in compared.arms if (arm.candidate, arm.variant) == (WINNER, Variant.CUSTOMIZED))
    assert arm.report is not None
    score = arm.report.scores["function_name_and_args"]
    expected = f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}] ({score.n})"
    assert by_name["this adapter"]["`function_name_and_args`"] == expected


def test_every_gate_stands_there_with_what_was_asked_and_measured(facts: CardFacts) -> None:
    _, _, *rows = rows_of(model_card(facts), "Why it passed")
    assert len(rows) == len(GATES)
    asked = {row[2] for row in rows}
    assert "loses less than 0.05 against the teacher" in asked and "at most 800" in asked and "above 0.8" in asked


def test_a_zero_tolerance_gate_is_said_in_words(facts: CardFacts, compared: Comparison) -> None:
    gates = (Gate("function_name_and_args", 0.05), Gate("function_name", 0.0, GateKind.ZERO_TOLERANCE))
    decision = replace(decide(compared, gates), candidate=WINNER, variant=Variant.CUSTOMIZED)
    assert "no failure at all" in model_card(replace(facts, decision=decision))


def test_training_is_told_without_the_machine(facts: CardFacts) -> None:
    card = model_card(facts)
    assert "812 rows, 203 steps, on cuda in bfloat16." in card and "1.250 before, 0.500 after" in card
    assert ["`learning_rate`", "0.0001"] in rows_of(card, "Training")
    assert "gpu-17" not in card and "save_steps" not in card


def test_limits_say_that_agreement_is_not_truth_and_where_the_rows_are_from(facts: CardFacts) -> None:
    card = model_card(facts)
    assert "agreement with it, not that it is right" in card
    assert "the decision holds until 2026-12-03" in card and "on anything else nothing is known" in card


def test_the_reason_of_a_hole_stays_at_home(facts: CardFacts, compared: Comparison, decided: Decision) -> None:
    arms = tuple(
        replace(arm, state="failed", reason="/srv/secret/place is gone", report=None)
        if (arm.candidate, arm.variant) == (WINNER, Variant.PREFIXED)
        else arm
        for arm in compared.arms
    )
    card = model_card(replace(facts, comparison=replace(compared, arms=arms)))
    assert "failed" in card and "/srv/secret" not in card


def test_nothing_of_a_row_stands_in_it(facts: CardFacts, compared: Comparison) -> None:
    card = model_card(facts)
    assert not [row for row in compared.row_ids if row in card]
    for word in ("blender", "Hafenstra", "orders.find"):
        assert word not in card


def test_it_passes_the_door_it_leaves_by(facts: CardFacts) -> None:
    assert findings("README.md", model_card(facts), CleaningPolicy(), {}) == []


def test_equal_evidence_gives_an_equal_card(facts: CardFacts, compared: Comparison, decided: Decision) -> None:
    again = replace(
        facts,
        comparison=Comparison.from_json(compared.to_json()),
        decision=Decision.from_json(decided.to_json()),
    )
    assert model_card(again) == model_card(facts)


def test_what_is_beside_it_is_listed(facts: CardFacts) -> None:
    assert "no tokenizer: it is the base model's" in model_card(facts) and "prefix.json" not in model_card(facts)
    more = model_card(replace(facts, files=[*facts.files, "tokenizer.json", "prefix.json"]))
    assert "the tokenizer it was trained with" in more and "the adapter was examined without it" in more
