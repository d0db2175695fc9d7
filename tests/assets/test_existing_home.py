"""A home that an older version made is opened by this one: nothing is trained or asked again where nothing changed for it.

A change of keys may score and decide anew. It must never retrain, ask a model what it has answered, draw another exam or
forget what people did. Every promise says which asset broke it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest
from dagster import DagsterInstance

from flywheel_assets.booking import RunReport
from flywheel_assets.core import graph
from flywheel_assets.core.graph import Partition
from flywheel_assets.core.prefix import read_prefix
from flywheel_assets.core.rows import Json
from flywheel_assets.resources.artifacts import Artifact
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.provenance import adapter_of
from flywheel_assets.resources.status import status_of
from tests.existing_home import ANSWERS, TICKETS, ExistingHome, flywheel_in, traffic, tuned, unpack

WORKLOADS, CANDIDATES = (ANSWERS, TICKETS), ("remote", "small")
ARRIVES = traffic(TICKETS, range(240, 280))


@pytest.fixture
def opened(tmp_path: Path, instance: DagsterInstance) -> Iterator[ExistingHome]:
    settings = unpack(tmp_path)
    asked = [*traffic(TICKETS, range(240)), *traffic(ANSWERS, range(110)), *ARRIVES]
    with flywheel_in(tmp_path, instance, settings, asked) as home:
        yield home


def test_nothing_is_trained_or_asked_where_nothing_changed(opened: ExistingHome) -> None:
    flywheel = opened.bench.flywheel
    before, exams, sides = published(flywheel), exam_rows(flywheel), side_of(flywheel)
    acts = flywheel.promotions.acts(TICKETS)
    assert len(acts) == 1

    report = opened.bench.turn()

    assert report.ok, told(flywheel, before, report)
    assert opened.platform.trained == [], told(flywheel, before, report)
    asked = [body["messages"][-1]["content"] for body in opened.double.chats]
    assert asked == [], told(flywheel, before, report)
    assert side_of(flywheel) == sides, told(flywheel, before, report)
    assert exam_rows(flywheel) == exams, told(flywheel, before, report)
    for target, artifact in before.items():
        if target[0] in (graph.ADAPTER, graph.PREFIX):
            now = flywheel.artifacts.require(*target)
            assert now.data_version == artifact.data_version, told(flywheel, before, report)
    assert flywheel.promotions.acts(TICKETS) == acts
    entries = json.loads((flywheel.artifacts.require(graph.CATALOG, Partition()).path / "model_selection.json").read_bytes())
    assert set(entries["workloads"]) == set(WORKLOADS)
    for workload in WORKLOADS:
        assert status_of(flywheel)["workloads"][workload]["decision"]["verdict"] in ("promote", "keep", "inconclusive")
    assert opened.bench.turn().materialized == []


def test_the_verdict_and_the_looks_it_rests_on_are_those_of_the_older_version(opened: ExistingHome) -> None:
    """A look is alpha that was spent: opening the home with another version spends none, and gives none back."""
    flywheel = opened.bench.flywheel
    old = evidence_of(flywheel, TICKETS)["looks_taken"]
    winner = flywheel.artifacts.require(graph.DECISION, Partition(TICKETS)).summary
    assert [look["rows"] for look in old] == [78, 90]

    opened.bench.turn()

    now = flywheel.artifacts.require(graph.DECISION, Partition(TICKETS))
    assert {key: now.summary[key] for key in ("verdict", "candidate", "variant")} == {
        key: winner[key] for key in ("verdict", "candidate", "variant")
    }
    taken = evidence_of(flywheel, TICKETS)["looks_taken"]
    assert [look["rows"] for look in taken] == [78, 90]
    assert sum(look["alpha"] for look in taken) == pytest.approx(sum(look["alpha"] for look in old))
    adapter = adapter_of(flywheel.artifacts, now)
    assert adapter is not None
    assert adapter.version == flywheel.artifacts.require(graph.ADAPTER, Partition(TICKETS, "small")).version


def test_of_new_records_only_the_new_eval_rows_are_asked(opened: ExistingHome) -> None:
    flywheel = opened.bench.flywheel
    before, exams, sides = published(flywheel), exam_rows(flywheel), side_of(flywheel)
    prefix = {target: artifact for target, artifact in before.items() if target[0] == graph.PREFIX}
    known = questions(flywheel, TICKETS)
    opened.ingest(ARRIVES)

    report = opened.bench.turn()

    assert report.ok, told(flywheel, before, report)
    now = side_of(flywheel)
    assert {row: now.get(row) for row, side in sides.items() if side} == {
        row: side for row, side in sides.items() if side
    }, told(flywheel, before, report)
    assert exam_rows(flywheel)[ANSWERS] == exams[ANSWERS], told(flywheel, before, report)
    assert set(opened.platform.trained) <= {"small"} and len(opened.platform.trained) <= 1, told(flywheel, before, report)
    moved = {t[1].candidate for t, a in prefix.items() if flywheel.artifacts.require(*t).data_version != a.data_version}
    again = [
        body["messages"][-1]["content"]
        for body in opened.double.chats
        # Another adapter or another prefix is another model.
        if not tuned(body) and not (moved and is_prefixed(flywheel, body)) and body["messages"][-1]["content"] in known
    ]
    assert again == [], told(flywheel, before, report)
    assert opened.double.chats, "new rows came, and nobody was asked: the test has lost its point"


def published(flywheel: Flywheel) -> dict[tuple[str, Partition], Artifact]:
    """Everything the home holds, as it stands now."""
    found = {}
    for node in graph.NODES:
        for workload in WORKLOADS:
            cells = [Partition(workload, candidate) for candidate in CANDIDATES]
            where = {graph.Scope.ALL: [Partition()], graph.Scope.WORKLOAD: [Partition(workload)]}.get(node.scope, cells)
            for partition in where:
                if (artifact := flywheel.artifacts.current(node.name, partition)) is not None:
                    found[node.name, partition] = artifact
    assert len(found) > 25
    return found


def told(flywheel: Flywheel, before: dict[tuple[str, Partition], Artifact], report: RunReport) -> str:
    """Which assets are not those of the archive any more, each with what differs in what it was made from."""
    lines = [f"failures: {report.failures}", *(f"hole: {h.asset} of {h.partition}: {h.reason}" for h in report.holes)]
    for (name, partition), old in before.items():
        now = flywheel.artifacts.current(name, partition)
        if now is None or now.inputs_key == old.inputs_key:
            continue
        why = [
            f"{part} {key}: {old.manifest[part].get(key)!r} -> {now.manifest[part].get(key)!r}"
            for part in ("inputs", "settings")
            for key in sorted({*(old.manifest[part] or {}), *(now.manifest[part] or {})})
            if (old.manifest[part] or {}).get(key) != (now.manifest[part] or {}).get(key)
        ]
        versions = (old.manifest["code_version"], now.manifest["code_version"])
        why += [f"code version {versions[0]} -> {versions[1]}"] if len(set(versions)) > 1 else []
        lines.append(f"{name} of {partition} was made again: {'; '.join(why) or 'its key is computed otherwise'}")
    return "\n".join(lines)


def exam_rows(flywheel: Flywheel) -> dict[str, list[str]]:
    return {workload: sorted(row["row_id"] for row in eval_lines(flywheel, workload)) for workload in WORKLOADS}


def questions(flywheel: Flywheel, workload: str) -> set[str]:
    """What the archived exam asks, by the last message."""
    return {row["request"]["messages"][-1]["content"] for row in eval_lines(flywheel, workload)}


def eval_lines(flywheel: Flywheel, workload: str) -> list[Json]:
    base = flywheel.artifacts.require(graph.BASE, Partition(workload))
    return [orjson.loads(line) for line in (base.path / "eval_data.jsonl").read_bytes().splitlines()]


def side_of(flywheel: Flywheel) -> dict[str, str | None]:
    """The side of every row: drawn or not, for ever; None is a row that is on none."""
    folders = [flywheel.artifacts.require(graph.BASE, Partition(workload)).path for workload in WORKLOADS]
    return {row["row_id"]: row["side"] for folder in folders for row in pq.read_table(folder / "rows.parquet").to_pylist()}


def evidence_of(flywheel: Flywheel, workload: str) -> Json:
    artifact = flywheel.artifacts.require(graph.DECISION, Partition(workload))
    evidence: Json = orjson.loads((artifact.path / "decision.json").read_bytes())["evidence"]
    return evidence


def is_prefixed(flywheel: Flywheel, body: Json) -> bool:
    """Whether a request opens with the examples of a prefix as it is now."""
    prefixes = [
        read_prefix(flywheel.artifacts.require(graph.PREFIX, Partition(TICKETS, candidate)).path) for candidate in CANDIDATES
    ]
    return any(body["messages"][: len(prefix)] == prefix for prefix in prefixes)
