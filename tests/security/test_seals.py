"""Evidence that was edited is refused by name: before a decision, an approval, and serving; `flywheel verify` finds it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterInstance

from flywheel_assets.cli_verify import verify_home
from flywheel_assets.core.graph import ADAPTER, BASE, COMPARISON, DECISION, EVALS, Partition
from flywheel_assets.core.promotion import Action
from flywheel_assets.core.rows import Variant
from flywheel_assets.resources.artifacts import Artifact, sha256_of_file
from flywheel_assets.resources.seals import Tampered
from flywheel_assets.runtime.selection import select
from flywheel_assets.seals import SEAL_TAG, require_untouched, require_untouched_evidence
from tests.assets.conftest import Bench
from tests.fake_platform import right
from tests.instances import local_instance

CELL, TICKETS = Partition("tickets", "small"), Partition("tickets")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A promoted customized model, and the event log that tells of it."""
    folder = tmp_path_factory.mktemp("whole")
    with _instance(folder) as instance:
        bench = _bench(folder, instance)
        bench.ingest(300)
        assert bench.turn().ok
    return folder


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Iterator[Bench]:
    shutil.copytree(whole, folder := tmp_path / "copy")
    with _instance(folder) as instance:
        yield _bench(folder, instance)


def _instance(folder: Path) -> DagsterInstance:
    return local_instance(folder / "dagster")


def _bench(folder: Path, instance: DagsterInstance) -> Bench:
    bench = Bench(folder, instance)
    bench.platform.answers = lambda candidate, variant, row: (
        right(candidate, variant, row) if variant is Variant.CUSTOMIZED else None
    )
    bench.content |= {
        "candidates": [{"id": "small", "model": "small.gguf"}],
        "split": {"eval_size": 100, "min_total_records": 50},
        "evaluation": {"max_error_share": 1.0},
        "decision": {"gates": [{"metric": "function_name", "margin": 0.2}]},
    }
    return bench


def _edited(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def _swap(artifact: Artifact, name: str) -> Path:
    file = artifact.path / name
    file.write_bytes(bytes(reversed(file.read_bytes())))
    return file


def test_an_untouched_home_is_as_published(copy: Bench) -> None:
    content = verify_home(copy.instance, copy.flywheel.settings)
    assert content["faults"] == [] and content["sealed"] == content["versions"] > 8


def test_swapped_predictions_decide_nothing(copy: Bench) -> None:
    file = _swap(copy.flywheel.artifacts.require(EVALS[Variant.CUSTOMIZED], CELL), "predictions.parquet")
    copy.flywheel.again.set(COMPARISON, TICKETS, "once more")
    failure = copy.turn().failures["comparison of tickets"]
    assert f"{file} was changed since it was published" in failure
    assert verify_home(copy.instance, copy.flywheel.settings)["faults"] == [f"{file} was changed since it was published"]


def test_a_manifest_edited_together_with_its_file_is_told_by_the_event_log(copy: Bench) -> None:
    evaluation = copy.flywheel.artifacts.require(EVALS[Variant.CUSTOMIZED], CELL)
    file = evaluation.path / "report.json"
    manifest = json.loads((evaluation.path / "manifest.json").read_text())
    file.write_text(file.read_text().replace("0", "1"))
    manifest["files"]["report.json"] = {"sha256": sha256_of_file(file), "bytes": file.stat().st_size}
    (evaluation.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(Tampered, match=r"manifest\.json was changed since"):
        require_untouched(copy.instance, [copy.flywheel.artifacts.require(EVALS[Variant.CUSTOMIZED], CELL)])


FORGED: dict[str, Callable[[Bench], object]] = {
    "the decision's verdict": lambda bench: _edited(
        bench.flywheel.artifacts.require(DECISION, TICKETS).path / "manifest.json", '"promote"', '"keep"'
    ),
    "the decision's file": lambda bench: _swap(bench.flywheel.artifacts.require(DECISION, TICKETS), "decision.json"),
    "the comparison": lambda bench: _swap(bench.flywheel.artifacts.require(COMPARISON, TICKETS), "comparison.json"),
    "the adapter": lambda bench: _swap(bench.flywheel.artifacts.require(ADAPTER, CELL), "adapter.gguf"),
    "a file beside": lambda bench: (bench.flywheel.artifacts.require(ADAPTER, CELL).path / "chat_template.jinja").write_text(
        "{{ evil }}"
    ),
}


@pytest.mark.parametrize("forged", FORGED)
def test_what_an_approval_rests_on_is_looked_at(copy: Bench, forged: str) -> None:
    require_untouched_evidence(copy.instance, copy.flywheel, "tickets", Action.APPROVE)
    FORGED[forged](copy)
    with pytest.raises(Tampered, match="since it was published"):
        require_untouched_evidence(copy.instance, copy.flywheel, "tickets", Action.APPROVE)


def test_what_is_served_is_looked_at(copy: Bench) -> None:
    selected = select(copy.flywheel.settings, copy.flywheel.artifacts, "tickets")
    assert selected.variant is Variant.CUSTOMIZED
    require_untouched(copy.instance, selected.evidence)
    _swap(copy.flywheel.artifacts.require(ADAPTER, CELL), "adapter.gguf")
    with pytest.raises(Tampered, match=r"adapter\.gguf was changed"):
        require_untouched(copy.instance, selected.evidence)


def test_an_edited_model_selection_is_found(copy: Bench) -> None:
    placed = copy.flywheel.settings.home / "model_selection.json"
    _edited(placed, '"promote"', '"keep"')
    (fault,) = verify_home(copy.instance, copy.flywheel.settings)["faults"]
    assert str(placed) in fault


def test_a_version_that_dagster_was_never_told_of_is_not_trusted(copy: Bench) -> None:
    artifacts = copy.flywheel.artifacts
    decision = artifacts.require(DECISION, TICKETS)
    shutil.copytree(decision.path, forged := decision.path.with_name("0" * 16))
    _edited(forged / "manifest.json", decision.version, "0" * 16)
    with pytest.raises(Tampered, match="was never reported to Dagster"):
        require_untouched(copy.instance, [artifacts.version(DECISION, TICKETS, "0" * 16)])


def test_what_is_older_than_seals_is_said_and_not_refused(copy: Bench) -> None:
    base = copy.flywheel.artifacts.require(BASE, TICKETS)
    with DagsterInstance.ephemeral() as instance:
        require_untouched(instance, [base])
        content = verify_home(instance, copy.flywheel.settings)
        assert content["faults"] == [] and content["sealed"] == 0
        _swap(base, "eval_data.jsonl")
        with pytest.raises(Tampered, match=r"eval_data\.jsonl was changed"):
            require_untouched(instance, [base])


def test_reporting_a_version_again_seals_nothing_that_was_changed(copy: Bench) -> None:
    evaluation = copy.flywheel.artifacts.require(EVALS[Variant.BASE], CELL)
    _edited(evaluation.path / "manifest.json", '"ok"', '"ok" ')
    made = dg.materialize(
        list(copy.defs.resolve_asset_graph().assets_defs),
        selection=[dg.AssetKey(["evals", "base"])],
        partition_key=dg.MultiPartitionKey({"workload": "tickets", "candidate": "small"}),
        instance=copy.instance,
        raise_on_error=False,
    )
    assert not made.success
    failure = copy.flywheel.artifacts.failure(EVALS[Variant.BASE], CELL)
    assert failure is not None and "manifest.json was changed" in failure.message
    assert SEAL_TAG == "flywheel/seal"


def test_what_is_put_beside_the_files_is_found_and_what_a_file_manager_leaves_is_not(copy: Bench) -> None:
    adapter = copy.flywheel.artifacts.require(ADAPTER, CELL)
    (adapter.path / ".DS_Store").write_text("")
    require_untouched(copy.instance, [adapter])
    (adapter.path / "tokenizer.json").write_text("{}")
    with pytest.raises(Tampered, match=r"tokenizer\.json was put there"):
        require_untouched(copy.instance, [adapter])
