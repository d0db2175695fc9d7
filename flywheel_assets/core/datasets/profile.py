"""The profile of a workload: what kind of LLM calls its records are, and whether this platform can work with them.

What belongs here: counting over the index, and the rule that names the type. What does not: choosing rows (`build`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets.core.datasets.conversation import NO_CALL, TEXT
from flywheel_assets.core.datasets.index import alive_rows, index_tables, value_counts
from flywheel_assets.core.datasets.languages import languages_of
from flywheel_assets.core.datasets.policy import is_train_only
from flywheel_assets.core.datasets.segments import read_summary
from flywheel_assets.core.records import RejectReason
from flywheel_assets.core.records.measures import MAX_COST_USD
from flywheel_assets.core.rows import Json, WorkloadType

UNSUPPORTED = "unsupported"
# A small text model that takes over takes all of the traffic. A stray image in a hundred records can be routed around
# it; more than that is a part of the workload it would fail on.
MAX_UNSUPPORTED_SHARE = 0.01
# A structured workload has an odd apology or a cut-off answer among its JSON. With more text than this, judging it as JSON
# would call right answers wrong.
MIN_STRUCTURED_SHARE = 0.95
# Some workloads offer other tools in every request; a profile is read by people.
SHOWN_TOOLS = 200
_COLUMNS = (
    "timestamp",
    "kind",
    "structured",
    "source",
    "unsupported",
    "teacher",
    "tools",
    "definitions",
    "called",
    "cost_usd",
    "latency_ms",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "user_turns",
    "request_size",
    "answer_size",
)
_NON_CHAT = str(RejectReason.NOT_CHAT)
_TOKENS = ("prompt_tokens", "completion_tokens", "cached_tokens")
_Numbers = np.ndarray[tuple[int], np.dtype[np.float64]]
_Sizes = np.ndarray[tuple[int], np.dtype[np.int32]]


@dataclass(frozen=True, slots=True)
class ToolUse:
    """One tool of the inventory: in how many records it was offered, and how often it was called.

    `schemas` are hashes of the definitions it was offered with, in hexadecimal: more than one where it was changed.
    """

    name: str
    offered: int
    calls: int
    schemas: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lengths:
    """Percentiles of a length, in bytes of JSON."""

    p50: int
    p95: int


@dataclass(frozen=True, slots=True)
class Examinable:
    """Of the records, those that may be examined on: what drift is measured by. Fields as in `WorkloadProfile`."""

    call_records: int
    no_call_records: int
    text_records: int
    tools: tuple[ToolUse, ...]
    distinct_tools: int
    request_histogram: dict[str, int]


@dataclass(frozen=True, slots=True)
class WorkloadProfile:
    """What a workload's records are. `type` is a `WorkloadType`, or `unsupported` and then `reason` says why.

    Counts are of records that count (no duplicates, none superseded). `structured_records` are answered with a JSON object
    or list, or asked for one, and call no tool. `unsupported` counts what a text model cannot
    take, by kind (`image`, `audio`, `not_chat`, another content part's type); those rows are in no dataset. `tools` are
    the `SHOWN_TOOLS` most offered of `distinct_tools`, `requests` are messages and tools, `answers` the
    assistant's messages; `request_histogram` counts requests by the power of two their length in bytes is below.
    `languages` counts what users write in, over a sample (`datasets.languages`).
    `cost_usd` is what the teacher cost on the `records_with_cost` that say so; `costs_left_out` counts records of earlier
    versions whose cost cannot be right. `usage` maps each teacher to the `records`, `prompt_tokens`, `completion_tokens` and
    `cached_tokens` (a part of the prompt's) of the answers that report tokens. `latency_ms` holds `p50` and `p95`, as logged
    where the teacher served, over the `records` that say so among those that may be examined on. `first`, `last`: epoch
    seconds, None without records.
    """

    type: str
    reason: str | None
    records: int
    call_records: int
    no_call_records: int
    text_records: int
    structured_records: int
    multi_turn_records: int
    unsupported: dict[str, int]
    tools: tuple[ToolUse, ...]
    distinct_tools: int
    sources: dict[str, int]
    teachers: dict[str, int]
    languages: dict[str, int]
    requests: Lengths
    answers: Lengths
    request_histogram: dict[str, int]
    examinable: Examinable
    cost_usd: float
    records_with_cost: int
    costs_left_out: int
    usage: dict[str, dict[str, int]]
    latency_ms: dict[str, float | int | None]
    first: float | None
    last: float | None

    @property
    def supported(self) -> bool:
        """Whether datasets can be made of this workload."""
        return self.type != UNSUPPORTED

    def to_json(self) -> Json:
        """JSON-ready."""
        return asdict(self)


def profile_workload(
    records: Path,
    *,
    refused: Mapping[str, int] | None = None,
    workload_type: WorkloadType | None = None,
    train_only: Sequence[str] | None = None,
) -> WorkloadProfile:
    """Profile a records folder.

    A workload is `tool_calling` as soon as one record offers tools (a model that takes over must handle those too, and
    text-only records beside them are scored as text); else `structured` where at least `MIN_STRUCTURED_SHARE` of the
    records are answered with a JSON object or list or ask for one (`response_format`); else `generic`. `workload_type`
    overrules that. It is `unsupported` all the same where more than `MAX_UNSUPPORTED_SHARE` of the traffic is image, audio
    or not chat. `refused` are counts by reason of records the
    trace store refused before they could get here; those of the folder's own quarantine are counted anyway. `train_only`
    are the sources that are never examined on; None: all but `traffic`.
    """
    summary = read_summary(records)
    alive = alive_rows(records, summary.rows)
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("source", "unsupported", "teacher")}
    all_calls, examined = _Calls(), _Calls()
    answer_sizes: list[_Sizes] = []
    cost_usd, records_with_cost, costs_left_out = 0.0, 0, 0
    latencies: list[_Numbers] = []
    usage: dict[str, Counter[str]] = {}
    multi_turn = structured = 0
    times: list[float] = []
    at = 0
    for whole in index_tables(records, summary.segments, _COLUMNS):
        table = whole.filter(pa.array(alive[at : at + whole.num_rows]))
        at += whole.num_rows
        for name, counter in counts.items():
            counter.update(value_counts(table[name]))
        sources = table["source"].to_pylist()
        all_calls.add(table)
        examinable = table.filter(pa.array([not is_train_only(source, train_only) for source in sources], pa.bool_()))
        examined.add(examinable)
        latencies.append(examinable["latency_ms"].drop_null().to_numpy())
        answer_sizes.append(table["answer_size"].to_numpy())
        logged = table["cost_usd"].drop_null().to_numpy()
        costs = logged[(logged >= 0) & (logged <= MAX_COST_USD)]
        _add_usage(usage, table)
        cost_usd, records_with_cost = cost_usd + float(costs.sum()), records_with_cost + len(costs)
        costs_left_out += len(logged) - len(costs)
        structured += int(table["structured"].to_numpy(zero_copy_only=False).sum())
        multi_turn += int((table["user_turns"].to_numpy() > 1).sum())
        if table.num_rows:
            seconds = table["timestamp"].to_numpy()
            times += [float(seconds.min()), float(seconds.max())]
    del counts["unsupported"][""]
    unsupported = counts["unsupported"]
    unsupported[_NON_CHAT] += summary.rejected.get(_NON_CHAT, 0) + (refused or {}).get(_NON_CHAT, 0)
    unsupported = +unsupported
    records_seen = summary.records + unsupported[_NON_CHAT]
    told = _told_type(summary.records, structured, offers_tools=bool(all_calls.offered))
    kind, reason = _type(unsupported, records_seen, workload_type or told)
    return WorkloadProfile(
        type=kind,
        reason=reason,
        records=summary.records,
        call_records=all_calls.call_records,
        no_call_records=all_calls.kinds[NO_CALL],
        text_records=all_calls.kinds[TEXT],
        structured_records=structured,
        multi_turn_records=multi_turn,
        unsupported=_by_count(unsupported),
        distinct_tools=len(all_calls.offered),
        tools=all_calls.tools(),
        sources=_by_count(counts["source"]),
        teachers=_by_count(counts["teacher"]),
        languages=languages_of(records, summary.segments, alive),
        requests=_percentiles(all_calls.request_sizes),
        answers=_percentiles(answer_sizes),
        request_histogram=_histogram(all_calls.request_sizes),
        examinable=Examinable(
            call_records=examined.call_records,
            no_call_records=examined.kinds[NO_CALL],
            text_records=examined.kinds[TEXT],
            tools=examined.tools(),
            distinct_tools=len(examined.offered),
            request_histogram=_histogram(examined.request_sizes),
        ),
        cost_usd=round(cost_usd, 6),
        records_with_cost=records_with_cost,
        costs_left_out=costs_left_out,
        usage={teacher: dict(usage[teacher]) for teacher in sorted(usage)},
        latency_ms=_latency(latencies),
        first=min(times, default=None),
        last=max(times, default=None),
    )


@dataclass(slots=True)
class _Calls:
    """What is called how, counted over tables of records."""

    kinds: Counter[str] = field(default_factory=Counter)
    offered: Counter[str] = field(default_factory=Counter)
    called: Counter[str] = field(default_factory=Counter)
    schemas: dict[str, set[int]] = field(default_factory=dict)
    request_sizes: list[_Sizes] = field(default_factory=list)

    def add(self, table: pa.Table) -> None:
        """Count a table."""
        for counter, column in ((self.kinds, "kind"), (self.offered, "tools"), (self.called, "called")):
            counter.update(value_counts(table[column]))
        for name, definition in _offered(table):
            self.schemas.setdefault(name, set()).add(definition)
        self.request_sizes.append(table["request_size"].to_numpy())

    @property
    def call_records(self) -> int:
        """Records that are answered with a call."""
        return self.kinds.total() - self.kinds[NO_CALL] - self.kinds[TEXT]

    def tools(self) -> tuple[ToolUse, ...]:
        """The tools, most offered first."""
        return tuple(
            ToolUse(
                name,
                self.offered[name],
                self.called[name],
                tuple(f"{definition:016x}" for definition in sorted(self.schemas.get(name, ()))),
            )
            for name in list(_by_count(self.offered | self.called))[:SHOWN_TOOLS]
        )


def _add_usage(usage: dict[str, Counter[str]], table: pa.Table) -> None:
    counted = table.select(["teacher", *_TOKENS])
    known = counted.filter(pc.and_(counted["prompt_tokens"].is_valid(), counted["completion_tokens"].is_valid()))
    sums = known.group_by("teacher").aggregate([*((name, "sum") for name in _TOKENS), ([], "count_all")])
    for row in sums.to_pylist():
        usage.setdefault(row["teacher"], Counter()).update(
            records=row["count_all"],
            # Of nothing but nulls the sum is null.
            **{name: row[f"{name}_sum"] or 0 for name in _TOKENS},
        )


def _told_type(records: int, structured: int, *, offers_tools: bool) -> WorkloadType:
    if offers_tools:
        return WorkloadType.TOOL_CALLING
    is_structured = structured > 0 and structured >= MIN_STRUCTURED_SHARE * records
    return WorkloadType.STRUCTURED if is_structured else WorkloadType.GENERIC


def _type(unsupported: Counter[str], records: int, supported: WorkloadType) -> tuple[str, str | None]:
    bad = unsupported.total()
    if bad and bad > MAX_UNSUPPORTED_SHARE * records:
        kinds = ", ".join(
            f"{count} {_IN_WORDS.get(kind, f'with {kind} content')}" for kind, count in _by_count(unsupported).items()
        )
        return UNSUPPORTED, (
            f"{bad} of {records} records cannot be taken over by a text model ({kinds}). Only text chat completions are "
            "supported: log this traffic under a workload_id of its own."
        )
    return supported.value, None


_IN_WORDS = {"image": "with images", "audio": "with audio", _NON_CHAT: "not chat completions"}


def _by_count(counter: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counter.items(), key=lambda item: (-item[1], item[0])))


def _offered(table: pa.Table) -> list[tuple[str, int]]:
    """Every distinct tool of a table with every distinct definition it has there."""
    names, definitions = (table[column].combine_chunks().flatten() for column in ("tools", "definitions"))
    pairs = pa.table({"name": names, "definition": definitions}).group_by(["name", "definition"]).aggregate([])
    return list(zip(pairs["name"].to_pylist(), pairs["definition"].to_pylist(), strict=True))


def _histogram(parts: list[_Sizes]) -> dict[str, int]:
    """Counts by the smallest power of two above each length."""
    values = np.concatenate(parts) if parts else np.empty(0, np.int32)
    bounds, counts = np.unique(np.frexp(values.astype(np.float64))[1], return_counts=True)
    return {str(2 ** int(bound)): int(count) for bound, count in zip(bounds, counts, strict=True)}


def _latency(parts: list[_Numbers]) -> dict[str, float | int | None]:
    values = np.concatenate(parts) if parts else np.empty(0)
    if not len(values):
        return {"p50": None, "p95": None, "records": 0}
    p50, p95 = np.percentile(values, [50, 95])
    return {"p50": float(p50), "p95": float(p95), "records": len(values)}


def _percentiles(parts: list[_Sizes]) -> Lengths:
    values = np.concatenate(parts) if parts else np.empty(0, np.int32)
    if not len(values):
        return Lengths(0, 0)
    p50, p95 = np.percentile(values, [50, 95], method="nearest")
    return Lengths(int(p50), int(p95))
