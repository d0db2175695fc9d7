"""A home whose files were damaged: what can be made again is, the rest is named, and nothing ends in a traceback."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from dagster import DagsterInstance

from flywheel_assets.cli_errors import expected_errors, said
from flywheel_assets.core.graph import BASE, DECISION, EVALS, Partition
from flywheel_assets.core.promotion import Action
from flywheel_assets.core.rows import Variant
from flywheel_assets.resources.promotions import promote
from flywheel_assets.resources.status import status_of
from flywheel_assets.runner import current_plan
from tests.assets.conftest import Bench
from tests.fake_platform import right
from tests.instances import local_instance

DAMAGES: dict[str, Callable[[Path], object]] = {
    "gone": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "zeros": lambda path: path.write_bytes(b"\0" * 64),
    "list": lambda path: path.write_text("[1, 2]"),
    "object": lambda path: path.write_text('{"a": null}'),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A promoted and approved workload, and its Dagster storage."""
    folder = tmp_path_factory.mktemp("whole")
    with local_instance(folder / "dagster") as instance:
        bench = _bench(folder, instance)
        bench.ingest(300)
        assert bench.turn().ok
        promote(bench.flywheel, "tickets", Action.APPROVE, who="Ada", why="shown", act_id="1")
        assert bench.turn().ok
    return folder


def _bench(folder: Path, instance: DagsterInstance) -> Bench:
    bench = Bench(folder, instance)
    bench.platform.answers = right
    bench.content |= {
        "candidates": [{"id": "small", "model": "small.gguf", "trainable": False}],
        "split": {"eval_size": 100, "min_total_records": 50},
        "decision": {"gates": [{"metric": "function_name", "margin": 0.2}]},
    }
    return bench


def _files(folder: Path) -> list[Path]:
    """The small files by which everything else is found: refs, manifests, logs of people and looks, what a page reads."""
    return sorted(
        path
        for path in (folder / "home").rglob("*.json")
        if path.name == "manifest.json" or "objects" not in path.parts or path.name == "decision.json"
    )


@pytest.mark.parametrize("damage", DAMAGES)
def test_status_and_plan_end_in_a_sentence_whatever_is_damaged(home: Path, damage: str, tmp_path: Path) -> None:
    chosen = random.Random(damage).sample(range(len(_files(home))), 6)
    with DagsterInstance.ephemeral() as instance:
        for number in chosen:
            copy = tmp_path / str(number)
            shutil.copytree(home, copy, ignore=shutil.ignore_patterns("dagster"))
            DAMAGES[damage](file := _files(copy)[number])
            bench = _bench(copy, instance)
            for look in (status_of, partial(current_plan, instance)):
                try:
                    look(bench.flywheel)
                except expected_errors() as error:
                    assert str(file) in said(error), said(error)
            shutil.rmtree(copy)


def test_what_can_be_made_again_is(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home, copy := tmp_path / "copy")
    with local_instance(copy / "dagster") as instance:
        bench = _bench(copy, instance)
        artifacts, cell = bench.flywheel.artifacts, Partition("tickets", "small")
        evaluation = artifacts.require(EVALS[Variant.BASE], cell)
        shutil.rmtree(evaluation.path)
        (artifacts.root / "refs" / DECISION / "tickets.json").write_text("")
        (artifacts.root / "failures" / "comparison").mkdir(parents=True)
        (artifacts.root / "failures" / "comparison" / "tickets.json").write_text("{")
        (artifacts.root / "drafts" / "not@ours").mkdir(parents=True)
        before = artifacts.require(BASE, Partition("tickets")).version
        assert bench.turn().ok
        assert artifacts.require(BASE, Partition("tickets")).version == before
        assert artifacts.require(EVALS[Variant.BASE], cell).data_version == evaluation.data_version
        assert status_of(bench.flywheel)["workloads"]["tickets"]["decision"]["verdict"] == "promote"
        assert (artifacts.root / "drafts" / "not@ours").is_dir()


def test_a_ref_leads_to_no_place_outside_its_folder(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "home", tmp_path / "home")
    with DagsterInstance.ephemeral() as instance:
        artifacts = _bench(tmp_path, instance).flywheel.artifacts
    ref = artifacts.root / "refs" / DECISION / "tickets.json"
    version = artifacts.require(DECISION, Partition("tickets")).version
    ref.write_text(ref.read_text().replace(version, f"../tickets/{version}"))
    assert artifacts.published(DECISION, Partition("tickets")) is None
