"""The documents that repeat what the code says, held to it."""

import json
import re
import time
import tomllib
from pathlib import Path

import orjson

from flywheel_assets.core.records import Record, RejectReason, parse_record

ROOT = Path(__file__).parents[1]
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
