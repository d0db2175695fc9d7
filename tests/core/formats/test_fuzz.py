"""Whatever a data set holds: each row is accepted or refused with a reason, and nothing else happens."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flywheel_assets.core.formats import BUILT_IN, FormatError, format_named, read_line
from flywheel_assets.core.records import Record, Reject
from tests.core.formats.rows import VALID, Row

LIMITS: dict[str, Any] = {"max_bytes": 10**6, "default_workload": "w", "source": None, "received_at": time.time()}
NAMES = [form.name for form in BUILT_IN]
TAGS = [
    "<tools>",
    "</tools>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "{'a': (1, 2)}",
    '{"name": "f"',
    "List[",
    ", ",
]
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.lists(st.sampled_from(TAGS), max_size=4).map("".join),
)
names = st.text(max_size=8)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4), max_leaves=12
)
FIELDS = sorted({name for rows in VALID.values() for row in rows for name in row} | {"request", "response", "system"})
objects = st.dictionaries(st.sampled_from(FIELDS) | names, values, max_size=6)


@st.composite
def mutated(draw: st.DrawFn, row: Row) -> Row:
    """A valid row with values at some places replaced, removed, wrapped or written as text."""
    row = json.loads(json.dumps(row))
    for _ in range(draw(st.integers(1, 3))):
        at: Any = row
        while True:
            places = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not places:
                break
            place = draw(st.sampled_from(places))
            if isinstance(at[place], dict | list) and at[place] and draw(st.booleans()):
                at = at[place]
                continue
            change = draw(st.sampled_from(["replace", "remove", "wrap", "as text", "cut"]))
            if change == "remove":
                del at[place]
            elif change == "wrap":
                at[place] = [at[place]]
            elif change == "as text":
                at[place] = json.dumps(at[place])
            elif change == "cut" and isinstance(at[place], str):
                at[place] = at[place][: draw(st.integers(0, len(at[place])))]
            else:
                at[place] = draw(values)
            break
    return row


def check(name: str, row: Row) -> None:
    form = format_named(name)
    assert form.recognises(row) in (True, False)
    try:
        line = json.dumps(row).encode()
        parsed = json.loads(line)
        made = form.records(parsed)
        assert parsed == json.loads(line), "the row was changed"
        assert made and all(isinstance(record, dict) for record in made)
    except FormatError as refusal:
        assert refusal.detail
    found = read_line(line, form, **LIMITS)
    assert found
    for one in found:
        assert isinstance(one, Record) or (isinstance(one, Reject) and one.detail and one.excerpt)


@pytest.mark.parametrize("name", NAMES)
def test_arbitrary_objects_are_read_or_refused(name: str) -> None:
    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(objects)
    def holds(row: Row) -> None:
        check(name, row)

    holds()


@pytest.mark.parametrize("name", VALID)
def test_mutated_rows_are_read_or_refused(name: str) -> None:
    @settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(VALID[name]).flatmap(mutated))
    def holds(row: Row) -> None:
        check(name, row)

    holds()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("depth", [200, 260, 900, 5000])
def test_deep_rows_are_refused_and_break_nothing(name: str, depth: int) -> None:
    deep = "[" * depth + "]" * depth
    for row in VALID.get(name, [{"request": {}, "response": {}}]):
        for field in row:
            text = json.dumps({**row, field: "@"})
            for line in (text.replace('"@"', deep), text.replace('"@"', json.dumps(deep))):
                found = read_line(
                    line.encode(),
                    format_named(name),
                    max_bytes=10**6,
                    default_workload="w",
                    source=None,
                    received_at=time.time(),
                )
                assert all(isinstance(one, Record | Reject) for one in found) and found


def test_long_strings_of_tags_take_no_long_time() -> None:
    started = time.monotonic()
    for text in ("<tool_call>" * 300_000, "<tools>{" * 300_000, "</tool_call>" * 300_000, "<tool_response>" * 200_000):
        turns = [{"from": "system", "value": text}, {"from": "human", "value": "x"}, {"from": "gpt", "value": text}]
        row = {"conversations": [*turns, {"from": "tool", "value": text}]}
        format_named("hermes").recognises(row)
        with contextlib.suppress(FormatError):
            format_named("hermes").records(row)
    assert time.monotonic() - started < 60
