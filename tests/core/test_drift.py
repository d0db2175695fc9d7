from __future__ import annotations

import numpy as np
import pytest

from flywheel_assets.core.drift import MIN_NEW_RECORDS, drift_between, shift_between


def profile(calls, lengths=None, no_call=0, schemas=None, distinct=None):
    examinable = {
        "tools": [
            {"name": name, "offered": n, "calls": n, "schemas": (schemas or {}).get(name, ["a"])}
            for name, n in calls.items()
        ],
        "distinct_tools": len(calls) if distinct is None else distinct,
        "call_records": sum(calls.values()),
        "no_call_records": no_call,
        "text_records": 0,
        "request_histogram": lengths or {"512": sum(calls.values()) + no_call},
    }
    # What was imported to train on is no part of it.
    return {"examinable": examinable, "tools": [{"name": "imported", "offered": 9, "calls": 9, "schemas": ["z"]}]}


def grown(then, **more):
    """The profile after more records: counts only ever grow."""
    return {name: n + more.get(name, 0) for name, n in then.items()} | {k: v for k, v in more.items() if k not in then}


def test_more_of_the_same_is_no_drift() -> None:
    then = {"search": 300, "book": 200}
    found = drift_between(profile(then), profile(grown(then, search=60, book=40)))
    assert not found.drifted
    assert found.new_records == 100
    assert found.summary() == "100 records since the decision that stood when this turn began, distributed as before."


def test_records_since_the_decision_are_compared_and_not_all_records_together() -> None:
    # Of all 11,000 records the share of `book` barely moved; of the 1,000 new ones all are `book`.
    then = {"search": 9000, "book": 1000}
    found = drift_between(profile(then), profile(grown(then, book=1000)))
    assert found.shifts["tools"].drifted
    assert found.shifts["tools"].now["book"] > 0.99
    assert "tools moved (PSI" in found.summary()


def test_a_tool_nobody_decided_on_and_a_changed_definition_are_drift_however_few_records() -> None:
    then = {"search": 300}
    now = profile(grown(then, search=2, cancel=1), schemas={"search": ["a", "b"]})
    found = drift_between(profile(then), now)
    assert (found.new_tools, found.changed_tools, found.drifted) == (("cancel",), ("search",), True)
    assert found.shifts == {}


def test_too_few_new_records_say_nothing() -> None:
    then = {"search": 300, "book": 200}
    found = drift_between(profile(then), profile(grown(then, book=MIN_NEW_RECORDS - 1)))
    assert not found.drifted
    assert "30 are needed" in found.summary()


def test_a_profile_that_lists_only_the_commonest_tools_calls_none_of_the_others_new() -> None:
    then = {"search": 300}
    assert drift_between(profile(then, distinct=900), profile(grown(then, rare=1))).new_tools == ()


@pytest.mark.parametrize("categories", [2, 10, 40])
def test_the_same_population_drifts_by_chance_about_once_in_twenty_times_at_most(categories: int) -> None:
    rng = np.random.default_rng(categories)
    shares = rng.dirichlet(np.full(categories, 5.0))
    drifted = 0
    for _ in range(400):
        then, now = (dict(zip(map(str, range(categories)), rng.multinomial(n, shares), strict=True)) for n in (400, 60))
        shift = shift_between(then, now)
        drifted += shift is not None and shift.drifted
    assert drifted <= 0.09 * 400


def test_psi_is_the_published_sum() -> None:
    shift = shift_between({"a": 50_000, "b": 50_000}, {"a": 60_000, "b": 40_000})
    assert shift is not None
    assert shift.psi == pytest.approx(0.1 * np.log(0.6 / 0.5) - 0.1 * np.log(0.4 / 0.5), rel=1e-3)
