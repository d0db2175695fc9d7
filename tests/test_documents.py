"""The documents that repeat what the code says, held to it."""

import json
import re
import time
import tomllib
from pathlib import Path

import orjson
import pytest

from flywheel_assets.core.formats import BUILT_IN, Format, read_line
from flywheel_assets.core.metrics.registry import BUILT_IN as BUILT_IN_METRICS
from flywheel_assets.core.records import Record, RejectReason, parse_record
from flywheel_assets.core.rows import WorkloadType
from flywheel_assets.resources.ingest import ingest
from flywheel_assets.resources.trace_stores import LocalTraceStore

ROOT = Path(__file__).parents[1]
EXTENDING = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
SCHEMA = (ROOT / "docs" / "log-schema.md").read_text(encoding="utf-8")


def test_the_example_of_the_log_schema_is_a_record():
    (example,) = re.findall(r"```json\n(.*?)```", SCHEMA, flags=re.DOTALL)

    assert isinstance(parse_record(orjson.dumps(json.loads(example)), max_bytes=10_000, received_at=time.time()), Record)


def test_every_reject_reason_is_explained_and_no_other():
    table = SCHEMA.split("| reason | means |")[1].split("\n\n")[0]

    assert re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE) == [str(reason) for reason in RejectReason]


def test_every_dependency_has_its_purpose_and_licence():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    names = {re.match(r"[A-Za-z0-9_.-]+", line).group().lower() for line in required}

    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    explained = {row[0].lower() for row in re.findall(r"^\| ([\w.-]+) \| ([^|]+) \| ([^|]+) \|$", page, flags=re.MULTILINE)}

    assert names - explained == set()


DATA = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
ROWS = re.findall(r"```json ([\w-]+)\n(.*?)\n```", DATA, flags=re.DOTALL)


def test_every_format_is_explained_with_a_row():
    explained = {name for name, _ in ROWS} | {"log"}
    assert explained == {form.name for form in BUILT_IN}
    assert set(re.findall(r"^## `([\w-]+)`", DATA, flags=re.MULTILINE)) == explained - {"log"}


@pytest.mark.parametrize(("name", "row"), ROWS, ids=[f"{n}-{name}" for n, (name, _) in enumerate(ROWS)])
def test_the_rows_shown_are_told_and_ingested(name, row, tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text(row + "\n", encoding="utf-8")
    store = LocalTraceStore(tmp_path / "traces.sqlite")
    report = ingest([path], store, format_name="auto", default_workload="order-router")
    store.close()

    assert (report.formats[str(path)], report.new, report.workloads) == (name, 1, {"order-router": 1})


def test_the_format_shown_as_an_example_is_one():
    (code,) = re.findall(r"```python\n(.*?)```", DATA, flags=re.DOTALL)
    names = {}
    exec(code, names)
    form = names["Tickets"]()

    assert isinstance(form, Format)
    line = b'{"ticket_text": "It leaks", "team": "plumbers"}'
    limits = {"max_bytes": 1000, "default_workload": "w", "source": None, "received_at": time.time()}
    (record,) = read_line(line, form, **limits)
    (reject,) = read_line(line.replace(b"plumbers", b""), form, **limits)
    assert isinstance(record, Record)
    assert reject.reason is RejectReason.NO_ANSWER


@pytest.mark.parametrize(
    ("kind", "heading"), zip(WorkloadType, ("## Tool calling", "## Structured", "## Text (`generic`)"), strict=True)
)
def test_every_metric_is_explained_under_its_workload_type_and_no_other(kind, heading):
    section = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8").split(heading)[1].split("\n## ")[0]
    explained = re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]+ \| [^|]+ \|$", section, flags=re.MULTILINE)

    assert sorted(explained) == sorted(metric.name for metric in BUILT_IN_METRICS if kind in metric.applies_to)


def test_the_metric_shown_as_an_example_is_the_example_package():
    (shown,) = re.findall(r"```python\n(from flywheel_assets\.core\.rows.*?)\n    def score", EXTENDING, flags=re.DOTALL)
    package = (ROOT / "examples" / "same_numbers_metric" / "same_numbers_metric.py").read_text(encoding="utf-8")

    lines = [line.split("  #")[0] for line in shown.splitlines() if line.strip()]
    assert [line for line in lines if line not in package.splitlines()] == []
