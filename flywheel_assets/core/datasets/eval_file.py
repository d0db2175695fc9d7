"""The eval file: `eval_data.jsonl`, the rows a workload is examined on.

What belongs here: writing it from the drawn rows, taking over lines that are already in the previous version. What does
not: which rows are drawn (`split`), and the form of a line (`rendering`).
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa

from flywheel_assets.core.datasets.gold import gold_of, is_condemned
from flywheel_assets.core.datasets.index import Array, index_tables, row_ids
from flywheel_assets.core.datasets.manifest import cluster_name
from flywheel_assets.core.datasets.rendering import eval_json, eval_lines, read_eval_line
from flywheel_assets.core.datasets.segments import Segment, read_bodies
from flywheel_assets.core.rows import RARE_CLASS_FLOOR, SAMPLE, Json
from flywheel_assets.core.suites import DomainRule, labels_of

EVAL_FILE = "eval_data.jsonl"
_COLUMNS = ["row_id", "trace_id", "content", "feedback", "block_offset", "block_bytes", "position"]


@dataclass(frozen=True, slots=True)
class EvalFile:
    """What was written: rows by label of each suite and by gold, and how many of them are examined against an answer that
    somebody disliked (`gold.is_condemned`).

    The data version is a hash of the lines without the chances of the rows: those change with every new record, and the
    same rows are the same exam.
    """

    data_version: str
    suites: dict[str, dict[str, int]]
    gold: dict[str, int]
    condemned: int


def write_eval_file(
    out: Path,
    previous: Path | None,
    records: Path,
    segments: Sequence[Segment],
    rows: Array,
    clusters: Array,
    chances: Array,
    domains: Sequence[DomainRule] = (),
    min_feedback: float | None = None,
    added: int = 0,
) -> EvalFile:
    """Write the eval rows and count their labels.

    `rows` are row numbers in the order of the exam, `clusters` their clusters' hashes, `chances` (0..1) those with which
    they were drawn; the last `added` of them are no part of the sample. Bodies are read only of rows the
    previous eval file does not hold, but all rows are labelled anew: `domains` and `min_feedback` (`gold.gold_of`) may have
    changed. Rows that bring accepted answers stand first, so that the field is seen early.
    """
    known = {(row["row_id"], row["trace_id"], row["content_hash"]): row for row in _previous_rows(previous)}
    made: dict[int, Json] = {}
    scores: dict[int, float] = {}
    names = [cluster_name(cluster) for cluster in clusters.tolist()]
    cluster_of = dict(zip(rows.tolist(), names, strict=True))
    start, lowest = 0, math.inf
    for segment, table in zip(segments, index_tables(records, segments, _COLUMNS), strict=True):
        scored = table["feedback"].drop_null().to_numpy()
        lowest = min(lowest, float(scored[~np.isnan(scored)].min(initial=math.inf)))
        inside = np.sort(rows[(rows >= start) & (rows < start + segment.rows)])
        if len(inside):
            found = table.take(inside - start)
            made |= _rows_of_segment(records / segment.bodies, found, inside, cluster_of, known)
            scores |= zip(inside.tolist(), found["feedback"].to_pylist(), strict=True)
        start += segment.rows
    for number, content in made.items():
        content["gold"] = gold_of(content, scores[number], min_feedback)
    condemned = sum(is_condemned(content, scores[number], lowest) for number, content in made.items())
    if added:
        for place, number in enumerate(rows.tolist()):
            made[number]["suite_draw"] = SAMPLE if place < len(rows) - added else RARE_CLASS_FLOOR
    ordered = sorted((made[row] for row in rows.tolist()), key=lambda row: "accepted_answers" not in row)
    suites = _label(ordered, domains)
    version = hashlib.sha256(b"".join(eval_lines(ordered))).hexdigest()[:16]
    for number, chance in zip(rows.tolist(), chances.tolist(), strict=True):
        made[number]["draw_probability"] = chance
    (out / EVAL_FILE).write_bytes(b"".join(eval_lines(ordered)))
    gold = dict(sorted(Counter(str(row["gold"]) for row in ordered).items()))
    return EvalFile(version, suites, gold, condemned)


def _label(rows: Sequence[Json], domains: Sequence[DomainRule]) -> dict[str, dict[str, int]]:
    """Label the rows, and count them by suite and label."""
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        labels = labels_of(row["request"], row["response"]["choices"][0]["message"], domains)
        # Text where there is no label, too: Arrow could not add one to a column that began with nulls.
        row |= {name: label or "" for name, label in labels.items()}
        drawn = {"suite_draw": row["suite_draw"]} if "suite_draw" in row else {}
        for name, label in {**labels, **drawn}.items():
            if label is not None:
                counts.setdefault(name.removeprefix("suite_"), Counter())[label] += 1
    return {suite: dict(sorted(labels.items())) for suite, labels in counts.items()}


def _rows_of_segment(
    bodies: Path, table: pa.Table, rows: Array, cluster_of: dict[int, str], known: dict[tuple[str, str, str], Json]
) -> dict[int, Json]:
    """The eval rows among one segment's `rows`; `table` is their part of the index."""
    ids = row_ids(table).hex()
    keys = [
        (ids[32 * at : 32 * at + 32], trace_id, f"{content:016x}")
        for at, (trace_id, content) in enumerate(
            zip(table["trace_id"].to_pylist(), table["content"].to_pylist(), strict=True)
        )
    ]
    numbered = list(zip(rows.tolist(), keys, strict=True))
    made = {row: {**known[key], "cluster": cluster_of[row]} for row, key in numbered if key in known}
    fresh = np.array([key not in known for key in keys])
    places = [table[name].to_numpy()[fresh] for name in _COLUMNS[4:]]
    missing = [(row, key) for row, key in numbered if key not in known]
    for (row, (row_id, _, content_hash)), body in zip(missing, read_bodies(bodies, *places), strict=True):
        made[row] = eval_json(orjson.loads(body), row_id, cluster_of[row], content_hash)
    return made


def _previous_rows(previous: Path | None) -> list[Json]:
    if previous is None:
        return []
    with (previous / EVAL_FILE).open("rb") as file:
        rows = [read_eval_line(line) for line in file]
    for row in rows:
        for told in ("draw_probability", "suite_draw"):
            row.pop(told, None)
    # Rows from before corrections were read may hold an answer that a person has put right.
    return [row for row in rows if "logged_answer" in row]
