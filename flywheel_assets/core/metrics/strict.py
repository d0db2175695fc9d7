"""Strict: this project's own definitions for tool calls, and the default ones of every gate.

Calls are a multiset: a call made twice counts twice, order does not count. Arguments are compared as parsed JSON, int with
float by value; malformed arguments match nothing, not even the same malformed text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from functools import lru_cache

from flywheel_assets.core.metrics.arguments import canonical_arguments, flat_arguments
from flywheel_assets.core.rows import Answer, EvalRow, ToolCall

# Three metrics ask about the same answers; a few thousand are those of one report.
_CACHED_PAIRS = 8192


def function_name(row: EvalRow, answer: Answer) -> float | None:
    """1 if the answer calls the same functions as the reference, each as often; arguments are not looked at.

    None where the reference calls nothing: `no_call` judges those rows.
    """
    if not row.reference.calls_tools:
        return None
    return float(_names(row.reference.tool_calls) == _names(answer.tool_calls))


def function_name_and_args(row: EvalRow, answer: Answer) -> float | None:
    """1 if the answer makes the same calls as the reference, arguments included, each as often.

    None where the reference calls nothing. Only the reference counts, also where the row has several accepted answers
    (`bfcl_ast` looks at those).
    """
    if not row.reference.calls_tools:
        return None
    expected, made = row.reference.tool_calls, answer.tool_calls
    if len(expected) != len(made):
        return 0.0
    calls = _calls(made)
    return float(calls is not None and calls == _calls(expected))


def no_call(row: EvalRow, answer: Answer) -> float | None:
    """1 if no call was expected and none was made. None where a call is expected: those rows have metrics of their own."""
    return None if row.reference.calls_tools else float(not answer.calls_tools)


def args_f1(row: EvalRow, answer: Answer) -> float | None:
    """F1 over the flattened arguments of all calls: the share of leaves that agree.

    A leaf is (function, path, value); leaves are a multiset over all calls, so an argument of the wrong function never
    counts. A call with malformed arguments adds one leaf that matches nothing. None where the reference calls nothing.
    """
    if not row.reference.calls_tools:
        return None
    agreeing, expected, made = _agreement(row.reference.tool_calls, answer.tool_calls)
    return 2.0 * agreeing / (expected + made)


def args_precision(row: EvalRow, answer: Answer) -> float | None:
    """The share of the answer's leaves that the reference has; 0 if nothing is called. Leaves and null as `args_f1`."""
    if not row.reference.calls_tools:
        return None
    agreeing, _, made = _agreement(row.reference.tool_calls, answer.tool_calls)
    return agreeing / made if made else 0.0


def args_recall(row: EvalRow, answer: Answer) -> float | None:
    """The share of the reference's leaves that the answer has. Leaves and null as `args_f1`."""
    if not row.reference.calls_tools:
        return None
    agreeing, expected, _ = _agreement(row.reference.tool_calls, answer.tool_calls)
    return agreeing / expected


def _names(calls: Iterable[ToolCall]) -> list[str]:
    return sorted(call.name for call in calls)


def _calls(calls: Iterable[ToolCall]) -> dict[tuple[str, Hashable], int] | None:
    """The calls as a multiset, how often each was made; None when one of them is malformed."""
    counted: dict[tuple[str, Hashable], int] = {}
    for call in calls:
        arguments = canonical_arguments(call.arguments)
        if arguments is None:
            return None
        made = (call.name, arguments)
        counted[made] = counted.get(made, 0) + 1
    return counted


@lru_cache(_CACHED_PAIRS)
def _agreement(expected: tuple[ToolCall, ...], made: tuple[ToolCall, ...]) -> tuple[int, int, int]:
    """How many leaves agree, how many were expected, how many were made."""
    wanted, wanted_count = _leaves(expected)
    found, found_count = _leaves(made)
    return (wanted & found).total(), wanted_count, found_count


def _leaves(calls: Iterable[ToolCall]) -> tuple[Counter[tuple[str, Hashable, Hashable]], int]:
    """The leaves that can match, and how many there are with those that cannot."""
    counted: Counter[tuple[str, Hashable, Hashable]] = Counter()
    total = 0
    for call in calls:
        leaves = flat_arguments(call.arguments)
        if leaves is None:
            total += 1
            continue
        total += len(leaves)
        counted.update((call.name, path, value) for path, value in leaves)
    return counted, total
