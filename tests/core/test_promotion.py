"""What people did is kept, and what serves follows from it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flywheel_assets.core.promotion import Act, Action, PromotionRefused, checked, is_approved, serving, standing

FIRST = Act(
    "1", Action.APPROVE, "router", "v1", "small", "customized", "a1", "Ada", "F1 within the margin", "2026-01-05T00:00:00Z"
)
SECOND = replace(FIRST, id="2", decision="v2", candidate="tiny")
BACK = replace(SECOND, id="3", action=Action.ROLLBACK, why="users complained")


def test_the_teacher_serves_until_somebody_approves() -> None:
    assert serving([]) is None and standing([], "v1") is None
    assert serving([FIRST]) == FIRST


def test_a_rollback_brings_back_what_was_approved_before_and_then_the_teacher() -> None:
    assert serving([FIRST, SECOND]) == SECOND
    assert serving([FIRST, SECOND, BACK]) == FIRST
    assert serving([FIRST, SECOND, BACK, replace(FIRST, id="4", action=Action.ROLLBACK)]) is None


def test_only_the_version_that_was_approved_and_not_taken_back_is_approved() -> None:
    assert is_approved([FIRST, SECOND], "v2") and is_approved([FIRST, SECOND], "v1")
    assert not is_approved([FIRST, SECOND, BACK], "v2")
    assert not is_approved([FIRST], "v3")


def test_the_same_act_told_twice_is_one() -> None:
    assert checked([], FIRST) == FIRST
    assert checked([FIRST], FIRST) is None


@pytest.mark.parametrize(
    ("before", "act", "says"),
    [
        ([FIRST], replace(FIRST, id="9"), "was approved by Ada"),
        ([FIRST], replace(FIRST, id="9", action=Action.REJECT), "flywheel rollback"),
        ([replace(FIRST, action=Action.REJECT)], replace(FIRST, id="9", action=Action.REJECT), "was rejected by Ada"),
        ([FIRST, SECOND], replace(FIRST, id="9", action=Action.ROLLBACK), "does not serve it now"),
        ([], replace(FIRST, why=" "), "`why` is empty"),
        ([], replace(FIRST, who=""), "`who` is empty"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(before: list[Act], act: Act, says: str) -> None:
    with pytest.raises(PromotionRefused, match=says):
        checked(before, act)


def test_a_rejected_decision_may_be_approved_after_all() -> None:
    assert checked([replace(FIRST, action=Action.REJECT)], replace(FIRST, id="9")) is not None


def test_an_act_is_read_back() -> None:
    assert Act.from_json(FIRST.to_json()) == FIRST
