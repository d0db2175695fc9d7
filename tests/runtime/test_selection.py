from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.core import graph
from flywheel_assets.core.graph import Partition
from flywheel_assets.core.rows import Json, Variant
from flywheel_assets.resources.artifacts import Artifact, ArtifactMissing, ArtifactStore, Made
from flywheel_assets.runtime.selection import select
from flywheel_assets.settings import Settings, parse_settings

SETTINGS = parse_settings(
    {"candidates": [{"id": "small", "model": "a.gguf"}, {"id": "tiny", "model": "b.gguf"}]}, home=Path("/h"), root=Path("/r")
)

SHOTS = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]


@pytest.fixture
def artifacts(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path)


def publish(
    artifacts: ArtifactStore,
    asset: str,
    partition: Partition,
    summary: Json,
    *,
    inputs: dict[str, str] | None = None,
    version: str = "v",
    **files: Any,
) -> Artifact:
    """`inputs`: data version by `asset@partition`; `files`: content by name without `.json`."""
    with artifacts.draft() as draft:
        for name, content in files.items():
            (draft.path / f"{name}.json").write_text(json.dumps(content))
        (draft.path / "adapter.gguf").write_text(f"{partition} {version}")
        return artifacts.publish(
            draft,
            asset,
            partition,
            Made(version, summary, "ok"),
            inputs_key=version,
            inputs=inputs or {},
            settings={},
            code_version="1",
            origin={},
        )


def evaluated(artifacts: ArtifactStore, candidate: str, variant: Variant, score: float) -> Artifact:
    partition = Partition("w", candidate)
    made_with = {Variant.CUSTOMIZED: graph.ADAPTER, Variant.PREFIXED: graph.PREFIX}.get(variant)
    inputs = {}
    if made_with is not None:
        publish(artifacts, made_with, partition, {}, prefix={"messages": SHOTS})
        inputs = {f"{made_with}@w/{candidate}": "v"}
    scores = {"scores": {"function_name_and_args": {"value": score}}}
    return publish(artifacts, graph.EVALS[variant], partition, scores, inputs=inputs)


def promoted(artifacts: ArtifactStore, winner: Artifact, variant: Variant) -> None:
    """A decision for the model of an evaluation."""
    candidate = winner.partition.candidate
    arm = {"candidate": candidate, "variant": str(variant), "version": winner.version}
    summary = {"verdict": "promote", "candidate": candidate, "variant": str(variant)}
    publish(artifacts, graph.DECISION, Partition("w"), summary, decision={"evidence": {"arms": [arm]}})


def chosen(
    artifacts: ArtifactStore, candidate: str | None = None, settings: Settings = SETTINGS
) -> tuple[str, Variant, bool]:
    found = select(settings, artifacts, "w", candidate)
    return found.candidate.id, found.variant, found.promoted


def test_the_winner_of_the_decision_is_served_and_marked_as_not_approved(artifacts: ArtifactStore) -> None:
    evaluated(artifacts, "small", Variant.BASE, 0.9)
    promoted(artifacts, evaluated(artifacts, "tiny", Variant.CUSTOMIZED, 0.8), Variant.CUSTOMIZED)
    assert chosen(artifacts) == ("tiny", Variant.CUSTOMIZED, False)


def test_a_winner_with_a_prefix_brings_the_prefix(artifacts: ArtifactStore) -> None:
    promoted(artifacts, evaluated(artifacts, "tiny", Variant.PREFIXED, 0.8), Variant.PREFIXED)
    found = select(SETTINGS, artifacts, "w")
    assert (found.variant, found.adapter_gguf) == (Variant.PREFIXED, None)
    assert list(found.prefix) == SHOTS
    assert found.prefix_file is not None and found.prefix_file.is_file()


def test_a_winner_comes_with_what_it_was_examined_with_whatever_was_made_since(artifacts: ArtifactStore) -> None:
    winner = evaluated(artifacts, "tiny", Variant.CUSTOMIZED, 0.8)
    promoted(artifacts, winner, Variant.CUSTOMIZED)
    publish(artifacts, graph.ADAPTER, winner.partition, {}, version="trained-since")
    adapter = select(SETTINGS, artifacts, "w").adapter_gguf
    assert adapter is not None and adapter.read_text() == "w x tiny v"
    # So does its prefix.
    winner = evaluated(artifacts, "small", Variant.PREFIXED, 0.9)
    promoted(artifacts, winner, Variant.PREFIXED)
    publish(artifacts, graph.PREFIX, winner.partition, {}, version="chosen-since", prefix={"messages": []})
    assert list(select(SETTINGS, artifacts, "w").prefix) == SHOTS


def test_a_winner_whose_adapter_is_gone_is_not_served_with_another(artifacts: ArtifactStore) -> None:
    winner = evaluated(artifacts, "tiny", Variant.CUSTOMIZED, 0.8)
    promoted(artifacts, winner, Variant.CUSTOMIZED)
    publish(artifacts, graph.ADAPTER, winner.partition, {}, version="trained-since")
    (old,) = [one for one in artifacts.history(graph.ADAPTER, winner.partition) if one.data_version == "v"]
    shutil.rmtree(old.path)
    with pytest.raises(ArtifactMissing, match=r"adapter.* was examined with is gone.*flywheel run w"):
        select(SETTINGS, artifacts, "w")


def test_without_a_winner_the_best_customized_model_is_there_to_try(artifacts: ArtifactStore) -> None:
    evaluated(artifacts, "small", Variant.BASE, 0.9)
    evaluated(artifacts, "small", Variant.CUSTOMIZED, 0.5)
    evaluated(artifacts, "tiny", Variant.CUSTOMIZED, 0.7)
    publish(artifacts, graph.DECISION, Partition("w"), {"verdict": "keep", "candidate": None, "variant": None})
    assert chosen(artifacts) == ("tiny", Variant.CUSTOMIZED, False)
    assert chosen(artifacts, "small") == ("small", Variant.CUSTOMIZED, False)
    adapter = select(SETTINGS, artifacts, "w").adapter_gguf
    assert adapter is not None and adapter.read_text() == "w x tiny v"


def test_only_a_base_model_is_better_than_nothing(artifacts: ArtifactStore) -> None:
    evaluated(artifacts, "small", Variant.BASE, 0.1)
    assert chosen(artifacts) == ("small", Variant.BASE, False)


def test_nothing_evaluated_says_what_to_run(artifacts: ArtifactStore) -> None:
    with pytest.raises(ArtifactMissing, match=r"Run `flywheel run w` first"):
        select(SETTINGS, artifacts, "w")
