"""NeMo: the tool-calling accuracy of NVIDIA NeMo Evaluator, reproduced with its faults, for parity with its reports.

Source: `ToolCallingMetric` of the `nemo_evaluator_sdk` in PyPI `nemo-platform` 0.3.0 (`function_name_accuracy`,
`function_name_and_args_accuracy`), read and re-implemented, not copied. The faults, kept on purpose:

- names are compared as sets and arguments in one slot a name, so duplicate parallel calls are lost (the last one counts);
- malformed JSON in an answer makes the argument score NaN, and such a row leaves the mean (here: null);
- any JSON counts as arguments, not only objects, and `true` equals `1`.

References are given to it as parsed objects, as its documentation asks; given as text, as logged, they could never match.
One fault is not kept: JSON that Python refuses to read (an integer of more than 4,300 digits, nesting without end) ends
NeMo's whole evaluation with an error; here it is malformed like any other. `make bench BENCH=nemo_parity_differences` runs
both.
Use `core.metrics.strict` for decisions.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

import orjson

from flywheel_assets.core.rows import Answer, EvalRow

# orjson reads an integer beyond 64 bits as a float.
_LONG_NUMBER = re.compile("[0-9]{19}")


@lru_cache(8192)
def _loads(text: str) -> Any:
    """Parsed as the standard library does, which NeMo uses (so `NaN` is a number).

    By orjson where both read the same, because it is six times as fast; what it refuses is left to the standard library.
    """
    if not _LONG_NUMBER.search(text):
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            pass
    return json.loads(text)


def function_name(row: EvalRow, answer: Answer) -> float | None:
    """1 if the set of called names equals the reference's. Applies to every row: two empty sets are equal."""
    return float({call.name for call in row.reference.tool_calls} == {call.name for call in answer.tool_calls})


def function_name_and_args(row: EvalRow, answer: Answer) -> float | None:
    """1 if the names match and, name by name, the last call's arguments are equal. None when the answer is malformed."""
    try:
        made = {call.name: _loads(call.arguments) for call in answer.tool_calls}
        expected = {call.name: _loads(call.arguments) for call in row.reference.tool_calls}
        return float(made.keys() == expected.keys() and all(made[name] == value for name, value in expected.items()))
    except (ValueError, RecursionError):
        return None
