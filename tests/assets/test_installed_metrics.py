"""A metric of another package in the whole loop: it scores what was already answered, and asks no model again."""

from __future__ import annotations

import csv
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flywheel_assets.core import graph
from flywheel_assets.core.graph import Partition
from flywheel_assets.core.metrics import installed, registry
from flywheel_assets.core.rows import Json
from flywheel_assets.resources.ingest import ingest
from flywheel_assets.resources.platform import LocalPlatform
from flywheel_assets.resources.status import status_of
from tests import plugin_package
from tests.assets.conftest import Bench
from tests.fakes import OpenAIDouble

MODULE = "same_numbers_metric"
CODE = (Path(__file__).parents[2] / "examples" / MODULE / f"{MODULE}.py").read_text(encoding="utf-8")

Install = Callable[[str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs the example package, or another version of it, as if this process had only now started."""

    def forget() -> None:
        sys.modules.pop(MODULE, None)
        importlib.invalidate_caches()
        installed.entry_points.cache_clear()
        registry._installed.cache_clear()

    def _install(code: str, version: str) -> None:
        point = {installed.ENTRY_POINT_GROUP: {"same_numbers": f"{MODULE}:SameNumbers"}}
        plugin_package.install(tmp_path / "site", MODULE, code, point, version=version)
        forget()

    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield _install
    monkeypatch.undo()
    forget()


@pytest.fixture
def served(bench: Bench) -> Iterator[OpenAIDouble]:
    """The bench with a real platform, and one candidate behind a URL that never gets a number right."""
    with OpenAIDouble(answer=lambda body: {"role": "assistant", "content": "case 7"}) as double:
        bench.content["candidates"] = [{"id": "remote", "model": double.url, "engine": "openai", "trainable": False}]
        bench.platform = LocalPlatform.of(bench.flywheel.settings)  # type: ignore[assignment]
        ingest([write_cases(bench.folder / "text.jsonl", 120)], bench.flywheel.traces)
        yield double


def write_cases(path: Path, n: int) -> Path:
    """Text records of the workload `answers`, whose answers are numbers."""
    records = [
        {
            "timestamp": 1_790_000_000 + 60 * i,
            "workload_id": "answers",
            "client_id": "desk",
            "request": {"model": "big-model", "messages": [{"role": "user", "content": f"Number of case {1000 + i}?"}]},
            "response": {"choices": [{"message": {"role": "assistant", "content": f"It is {1000 + i}."}}]},
        }
        for i in range(n)
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def base(bench: Bench) -> Json:
    return status_of(bench.flywheel)["workloads"]["answers"]["cells"]["remote"]["base"]


def leaderboard(bench: Bench) -> list[dict[str, str]]:
    comparison = bench.flywheel.artifacts.require(graph.COMPARISON, Partition("answers")).path
    return list(csv.DictReader((comparison / "leaderboard.csv").read_text().splitlines()))


def test_a_new_metric_and_new_versions_of_it_score_again_without_a_model_call_and_fail_by_name(
    bench: Bench, served: OpenAIDouble, install: Install
) -> None:
    assert bench.turn().ok
    asked = served.count
    assert asked > 0
    assert "same_numbers" not in leaderboard(bench)[0]

    install(CODE, "0.1.0")
    report = bench.turn()
    assert report.ok
    assert any(graph.COMPARISON in name for name in report.materialized)
    scores = base(bench)["scores"]
    assert (scores["same_numbers"]["value"], scores["same_numbers"]["n"]) == (0.0, base(bench)["n"])
    assert [line["same_numbers"] for line in leaderboard(bench)[:2]] == ["1.0", "0.0"]
    assert bench.turn().materialized == []

    install(CODE.replace("float(_numbers(answer) == expected)", "float(bool(_numbers(answer)))"), "0.2.0")
    assert bench.turn().ok
    assert [line["same_numbers"] for line in leaderboard(bench)[:2]] == ["1.0", "1.0"]

    install(CODE.replace('answer.content or ""', "answer.text"), "0.3.0")
    assert not bench.turn().ok
    assert base(bench)["state"] == "failed"
    assert "metric 'same_numbers', row '" in base(bench)["reason"] and "AttributeError" in base(bench)["reason"]
    assert served.count == asked


def test_a_metric_that_cannot_be_loaded_is_found_before_a_model_is_asked(
    bench: Bench, served: OpenAIDouble, install: Install
) -> None:
    install("import no_such_module\n", "0.4.0")
    assert not bench.turn().ok
    assert "no_such_module" in base(bench)["reason"] and "same_numbers_metric' 0.4.0" in base(bench)["reason"]
    assert served.count == 0
