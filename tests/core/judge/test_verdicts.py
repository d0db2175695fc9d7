"""A judge's words are read as the rubric asks, or not at all."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel_assets.core.judge import Rubric, Winner, parse_score, parse_winner, resolve, to_share

SIMILARITY, TOOL_CALL = Rubric.SIMILARITY, Rubric.TOOL_CALL
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["score", "winner", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.mark.parametrize("score", range(1, 11))
def test_every_similarity_is_read_as_it_is_and_ten_is_ten(score: int) -> None:
    assert parse_score(SIMILARITY, f' {{"score": {score}}}\n') == score
    assert to_share(score) == (score - 1) / 9


@pytest.mark.parametrize("score", [0, 1])
def test_tool_calls_are_right_or_wrong(score: int) -> None:
    assert parse_score(TOOL_CALL, f'{{"score":{score}}}') == score


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "10",
        "8",
        "Score: 10",
        "The score is 10/10.",
        '{"score": 0}',
        '{"score": 11}',
        '{"score": -3}',
        '{"score": 9.0}',
        '{"score": 1e1}',
        '{"score": "10"}',
        '{"score": true}',
        '{"score": null}',
        '{"score": [10]}',
        '{"score": {"score": 10}}',
        '{"Score": 10}',
        '{"rating": 10}',
        '{"score": 10, "reason": "good"}',
        '{"score": 1, "score": 10}',
        '[{"score": 10}]',
        '[["score", 10]]',
        '```json\n{"score": 10}\n```',
        '{"score": 10} because it is right',
        '{"score": 10}{"score": 10}',
        "{'score': 10}",
        '{"score": 10',
        '{"score": NaN}',
        '{"score": ' + "9" * 5000 + "}",
        '{"score": ' + "[" * 100_000,
        "\ud83d",
    ],
)
def test_what_is_not_exactly_the_asked_for_object_is_no_verdict(text: str | None) -> None:
    assert parse_score(SIMILARITY, text) is None


@pytest.mark.parametrize("text", ['{"score": 2}', '{"score": false}', '{"score": 0.0}', '{"winner": "A"}'])
def test_a_tool_call_is_scored_0_or_1_and_nothing_else(text: str) -> None:
    assert parse_score(TOOL_CALL, text) is None


@given(st.text() | ANY_JSON.map(json.dumps) | st.binary().map(lambda b: b.decode("latin-1")))
def test_garbage_never_raises_and_a_verdict_says_what_the_text_says(text: str) -> None:
    for rubric, accepted in ((SIMILARITY, range(1, 11)), (TOOL_CALL, range(2))):
        score = parse_score(rubric, text)
        assert score is None or (score in accepted and json.loads(text) == {"score": score})
    winner = parse_winner(text)
    assert winner is None or json.loads(text) == {"winner": winner.value}


@pytest.mark.parametrize(
    ("text", "winner"), [('{"winner": "A"}', "A"), ('{"winner":"B"}', "B"), ('{"winner": "tie"}', "tie")]
)
def test_a_winner_is_a_or_b_or_a_tie(text: str, winner: str) -> None:
    assert parse_winner(text) is Winner(winner)


@pytest.mark.parametrize("text", ['{"winner": "a"}', '{"winner": "Tie"}', '{"winner": 1}', '{"winner": ["A"]}', "A", None])
def test_another_winner_is_no_verdict(text: str | None) -> None:
    assert parse_winner(text) is None


A, B, TIE = Winner.A, Winner.B, Winner.TIE


@pytest.mark.parametrize(
    ("answer_first", "reference_first", "score", "consistent"),
    [
        (A, B, 1.0, True),
        (B, A, 0.0, True),
        (TIE, TIE, 0.5, True),
        (A, A, 0.5, False),
        (B, B, 0.5, False),
        (A, TIE, 0.5, False),
        (TIE, A, 0.5, False),
        (None, A, None, True),
        (B, None, None, True),
    ],
)
def test_only_a_win_in_both_places_counts(
    answer_first: Winner | None, reference_first: Winner | None, score: float | None, consistent: bool
) -> None:
    found = resolve(answer_first, reference_first)
    assert (found.score, found.consistent) == (score, consistent)
