"""Aggregates: numbers of a report that are no mean of rows, with their intervals.

What belongs here: macro-F1 over a closed set of labels, and the valid-call rate, which is a mean of calls. What does not:
metrics, which judge one row (`core.metrics`); no gate can be set on an aggregate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from flywheel_assets.core.clusters import cluster_codes
from flywheel_assets.core.metrics.valid_calls import count_valid
from flywheel_assets.core.rows import Answer, EvalRow, Json, Prediction, WorkloadType
from flywheel_assets.core.statistics import mean_interval

# What counts as a closed set of labels; docs/metrics.md gives the rule in words.
MAX_LABEL_CHARS = 64
# What bounds the labels is the rows for each of them, below; this bounds the report, which has a line for each label.
MAX_LABELS = 1_000
MIN_ROWS_A_LABEL = 5
MAX_SHARE_OF_SINGLES = 0.1

# No verdict rests on these intervals, so fewer resamples do than for a gate.
_RESAMPLES = 2_000
_CHUNK_WEIGHTS = 1 << 20


def aggregates_of(
    workload_type: WorkloadType, rows: Sequence[EvalRow], predictions: Sequence[Prediction], *, seed: int = 0
) -> Json:
    """`{name: {"value", "low", "high", "n", ...}}`, 95% intervals over the rows' clusters; what does not apply is left out.

    Text workloads: `macro_f1` where the references are a closed set of labels, with `labels` and `outside`. Tool calling:
    `valid_call_rate` where anything was called.
    """
    by_row = {prediction.row_id: prediction.answer for prediction in predictions}
    answers = [by_row[row.row_id] for row in rows]
    if workload_type is WorkloadType.GENERIC:
        found = macro_f1(rows, answers, seed=seed)
        return {} if found is None else {"macro_f1": found}
    if workload_type is WorkloadType.TOOL_CALLING:
        rate = valid_call_rate(rows, answers)
        return {} if rate is None else {"valid_call_rate": rate}
    return {}


def closed_labels(references: Sequence[Answer]) -> tuple[str, ...] | None:
    """The labels that references choose from, sorted; None where they are no closed set.

    They are one where every reference is one line of 1 to 64 characters (blanks around it aside), there are 2 to 1,000
    different ones, at least 5 rows for each on average, and at most a tenth of the rows has one of its own.
    """
    labels = [_label(reference) for reference in references]
    if any(not label or len(label) > MAX_LABEL_CHARS or len(label.splitlines()) > 1 for label in labels):
        return None
    counted = Counter(labels)
    if not 2 <= len(counted) <= MAX_LABELS or len(labels) < MIN_ROWS_A_LABEL * len(counted):
        return None
    singles = sum(count == 1 for count in counted.values())
    return tuple(sorted(counted)) if singles <= MAX_SHARE_OF_SINGLES * len(labels) else None


def macro_f1(rows: Sequence[EvalRow], answers: Sequence[Answer | None], *, seed: int = 0) -> Json | None:
    """The unweighted mean of F1 over the labels of the references; None where they are no closed set.

    An answer is the label it equals, blanks around it aside; anything else, and an error, is no label: a miss of the right
    one, and a false alarm of none. `labels` holds `{"n", "precision", "recall", "f1"}` of each (precision null where it was
    never answered), `outside` counts the answers that are none of them.
    """
    labels = closed_labels([row.reference for row in rows])
    if labels is None:
        return None
    place = {label: index for index, label in enumerate(labels)}
    expected = np.array([place[_label(row.reference)] for row in rows])
    # -1: no label at all.
    said = np.array([-1 if answer is None else place.get(_label(answer), -1) for answer in answers])
    codes = cluster_codes([row.cluster for row in rows], len(rows))
    counts = _counts(expected, said, codes, len(labels))
    totals = np.asarray(counts.sum(axis=0)).ravel()
    right, wanted, answered = totals.reshape(3, -1)
    low, high = _bounds(counts, seed)
    value = float(_macro(totals[None, :])[0])
    return {
        "value": value,
        "low": min(low, value),
        "high": max(high, value),
        "n": len(rows),
        "outside": sum(answer is not None and _label(answer) not in place for answer in answers),
        "labels": {
            label: {
                "n": int(wanted[i]),
                "precision": float(right[i] / answered[i]) if answered[i] else None,
                "recall": float(right[i] / wanted[i]),
                "f1": float(2 * right[i] / (wanted[i] + answered[i])),
            }
            for i, label in enumerate(labels)
        },
    }


def valid_call_rate(rows: Sequence[EvalRow], answers: Sequence[Answer | None]) -> Json | None:
    """Of all calls made, also where none was expected, the valid share (`core.metrics.valid_calls`); `n` counts them.

    Rows whose request lists no tools are left out. None where nothing was called.
    """
    valid: list[float] = []
    clusters: list[str] = []
    for row, answer in zip(rows, answers, strict=True):
        if answer is None or not answer.tool_calls or not row.request.get("tools"):
            continue
        good, made = count_valid(row.request, answer), len(answer.tool_calls)
        valid += [1.0] * good + [0.0] * (made - good)
        clusters += [row.cluster] * made
    if not valid:
        return None
    rate = mean_interval(valid, clusters)
    return {"value": rate.value, "low": rate.low, "high": rate.high, "n": len(valid)}


def _label(answer: Answer) -> str:
    return "" if answer.calls_tools else (answer.content or "").strip()


def _counts(expected: NDArray[np.int64], said: NDArray[np.int64], codes: NDArray[np.int64], labels: int) -> csr_array:
    """Right, wanted and answered of each label, side by side: shape (clusters, 3 * labels), three numbers a row at most."""
    known = said >= 0
    hit = known & (said == expected)
    clusters = np.concatenate([codes[hit], codes, codes[known]])
    columns = np.concatenate([expected[hit], labels + expected, 2 * labels + said[known]])
    # Entries of one place are added up.
    return csr_array((np.ones(len(columns)), (clusters, columns)), shape=(int(codes.max()) + 1, 3 * labels))


def _macro(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Macro-F1 of each line of counts. Shape (lines,)."""
    right, wanted, answered = np.split(counts, 3, axis=1)
    return np.asarray((2.0 * right / (wanted + answered)).mean(axis=1))


def _bounds(counts: csr_array, seed: int) -> tuple[float, float]:
    """The two-sided 95% interval: a Bayesian bootstrap over clusters, with one imagined cluster of average size in which
    everything is wrong (for the lower bound) or right (for the upper), as in `core.clusters.bootstrap_means`."""
    clusters, labels = counts.shape[0], counts.shape[1] // 3
    usual = np.asarray(counts.sum(axis=0)).ravel()[labels : 2 * labels] / clusters
    nothing = np.zeros(labels)
    guards = np.stack([np.concatenate([nothing, usual, nothing]), np.concatenate([usual, usual, usual])])
    rng = np.random.default_rng(seed)
    found = np.empty((2, _RESAMPLES))
    plain = np.empty(_RESAMPLES)
    step = max(1, _CHUNK_WEIGHTS // (max(clusters, 3 * labels) + 1))
    for start in range(0, _RESAMPLES, step):
        stop = min(start + step, _RESAMPLES)
        weights = rng.standard_exponential((stop - start, clusters + 1))
        drawn = weights[:, 1:] @ counts
        plain[start:stop] = _macro(drawn)
        for side, guard in enumerate(guards):
            found[side, start:stop] = _macro(drawn + weights[:, :1] * guard)
    # F1 bends downwards, so with few rows for a label the mean of the draws lies below the value: both bounds are moved by
    # that. The value lies as far below the truth again where it is chance how many rows a label has, and not where each
    # has its share: the upper bound allows for it.
    bias = float(_macro(np.asarray(counts.sum(axis=0)).ravel()[None, :])[0]) - float(plain.mean())
    low, high = float(np.quantile(found[0], 0.025)) + bias, float(np.quantile(found[1], 0.975)) + 2.0 * bias
    return max(0.0, low), min(1.0, high)
