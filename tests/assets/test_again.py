"""`flywheel run --again ASSET`: what no key can see has changed is made again because a person says so."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import DagsterInstance
from rich.console import Console

from flywheel_assets.again import mark
from flywheel_assets.booking import RunReport
from flywheel_assets.cli_errors import UserError
from flywheel_assets.cli_run import print_plan
from flywheel_assets.core import graph
from flywheel_assets.core.graph import Partition
from flywheel_assets.core.rows import Json, Variant
from flywheel_assets.runner import Choice
from tests.existing_home import ANSWERS, ExistingHome, flywheel_in, traffic
from tests.fakes import Fault

SETTINGS = """\
candidates:
  - {id: remote, model: https://models.example/v1, model_name: remote-1, engine: openai}
  - {id: small, model: small.gguf}
split: {eval_size: 30, min_total_records: 50}
evaluation: {concurrency: 1}
"""
BASE = graph.EVALS[Variant.BASE]
REMOTE = Choice((ANSWERS,), ("remote",))


@pytest.fixture
def home(tmp_path: Path, instance: DagsterInstance) -> Iterator[ExistingHome]:
    records = traffic(ANSWERS, range(80))
    with flywheel_in(tmp_path, instance, SETTINGS, records) as home:
        home.ingest(records)
        yield home


@pytest.fixture
def made(home: ExistingHome) -> ExistingHome:
    """A home where everything is made."""
    assert home.bench.turn().ok
    home.double.chats.clear()
    return home


def again(home: ExistingHome, *assets: str, choice: Choice = REMOTE) -> RunReport:
    mark(home.bench.flywheel, assets, choice)
    return home.bench.turn()


def said_sorry(home: ExistingHome, variant: Variant = Variant.BASE) -> bool:
    artifact = home.bench.flywheel.artifacts.require(graph.EVALS[variant], Partition(ANSWERS, "remote"))
    return "Sorry." in (artifact.path / "examples.json").read_text()


def replaced(body: Json) -> Json:
    return {"role": "assistant", "content": "Sorry."}


def answered_by(home: ExistingHome) -> dict[tuple[str, str], str]:
    """What answered for each arm that was compared."""
    artifact = home.bench.flywheel.artifacts.require(graph.COMPARISON, Partition(ANSWERS))
    arms = json.loads((artifact.path / "comparison.json").read_text())["arms"]
    return {(arm["candidate"], arm["variant"]): arm["answered_by"] for arm in arms if arm["state"] == "ok"}


def test_a_comparison_tells_the_model_that_was_replaced_from_the_one_before(made: ExistingHome) -> None:
    before = answered_by(made)
    assert None not in before.values() and len(before) == 5
    made.double.answer = replaced
    again(made, BASE)
    after = answered_by(made)
    assert {arm for arm in before if before[arm] != after[arm]} == {("remote", "base")}


def test_a_model_replaced_behind_its_url_is_asked_every_row_anew_and_all_that_follows_is_made(
    made: ExistingHome, instance: DagsterInstance, capsys: pytest.CaptureFixture[str]
) -> None:
    made.double.answer = replaced
    settings, out = made.bench.flywheel.settings, Console(file=io.StringIO())
    print_plan(instance, settings, [ANSWERS], ["remote"], again=[BASE], as_json=True, out=out)
    items = json.loads(capsys.readouterr().out)["items"]
    assert {"asset": BASE, "workload": ANSWERS, "candidate": "remote", "reason": "asked for again"} in items
    assert {item["asset"] for item in items} == {BASE, graph.COMPARISON, graph.DECISION, graph.CATALOG}
    assert made.bench.turn().materialized == [], "no key sees the other model, and a dry run changes nothing"

    report = again(made, BASE)

    assert report.ok
    assert {name.split(" of ")[0] for name in report.materialized} == {BASE, graph.COMPARISON, graph.DECISION, graph.CATALOG}
    assert [name for name in report.materialized if name.startswith(BASE)] == [f"{BASE} of {ANSWERS} x remote"]
    rows = made.bench.flywheel.artifacts.require(graph.BASE, Partition(ANSWERS)).summary["eval_rows"]
    assert made.double.count == rows
    assert said_sorry(made) and not said_sorry(made, Variant.PREFIXED)
    # Once, and not with every turn; but as often as a person wants it.
    assert made.bench.turn().materialized == [] and made.double.count == rows
    again(made, BASE)
    assert made.double.count == 2 * rows
    assert made.platform.trained == ["small"]


def test_what_an_interrupted_turn_asked_anew_is_kept_whoever_asks_for_it_again(made: ExistingHome) -> None:
    made.double.answer = replaced
    rows = made.bench.flywheel.artifacts.require(graph.BASE, Partition(ANSWERS)).summary["eval_rows"]
    mark(made.bench.flywheel, [BASE], REMOTE)
    # Ten good answers, then the endpoint refuses everything.
    made.double.faults.extend([Fault()] * 10 + [Fault(400)] * 3)
    assert not made.bench.turn().ok
    so_far = made.double.count
    assert again(made, BASE).ok
    assert made.double.count - so_far == rows - 10
    assert said_sorry(made)


def test_an_adapter_is_trained_anew(made: ExistingHome) -> None:
    report = again(made, graph.ADAPTER, choice=Choice((ANSWERS,), ("small",)))
    assert report.ok
    assert made.platform.trained == ["small", "small"]
    # The same weights came of it: nobody is asked again, and nothing is decided again.
    assert made.double.count == 0
    assert not any(name.startswith((graph.COMPARISON, graph.DECISION)) for name in report.materialized)


def test_new_records_after_it_ask_only_new_rows_of_the_new_model(made: ExistingHome) -> None:
    made.double.answer = replaced
    again(made, "evals")
    known = {body["messages"][-1]["content"] for body in made.double.chats}
    made.double.chats.clear()
    made.ingest(traffic(ANSWERS, range(80, 100)))
    assert made.bench.turn().ok
    asked = [body for body in made.double.chats if len(body["messages"]) == 1 and body["model"] == "remote"]
    assert not known & {body["messages"][-1]["content"] for body in asked}
    assert said_sorry(made) and said_sorry(made, Variant.PREFIXED)


@pytest.mark.parametrize("asset", ["evals/bsae", "traces"])
def test_a_name_that_is_no_asset_which_is_made_is_refused_with_those_that_are(home: ExistingHome, asset: str) -> None:
    with pytest.raises(UserError, match=r"no asset of that name is made.*evals/base.*adapter|adapter.*evals/base"):
        mark(home.bench.flywheel, [asset], REMOTE)
    with pytest.raises(UserError, match="nothing of that is made"):
        mark(home.bench.flywheel, [graph.VALIDATION_EVAL], REMOTE)
