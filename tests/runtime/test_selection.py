from __future__ import annotations

import json
from pathlib import Path

import pytest

from flywheel_assets.core import graph
from flywheel_assets.core.graph import Partition
from flywheel_assets.core.rows import Json, Variant
from flywheel_assets.resources.artifacts import ArtifactMissing, ArtifactStore, Made
from flywheel_assets.runtime.selection import select
from flywheel_assets.settings import Settings, parse_settings

SETTINGS = parse_settings(
    {"candidates": [{"id": "small", "model": "a.gguf"}, {"id": "tiny", "model": "b.gguf"}]}, home=Path("/h"), root=Path("/r")
)


@pytest.fixture
def artifacts(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path)


def publish(
    artifacts: ArtifactStore,
    asset: str,
    partition: Partition,
    summary: Json,
    state: str = "ok",
    prefix: list[Json] | None = None,
) -> None:
    with artifacts.draft() as draft:
        (draft.path / "prefix.json").write_text(json.dumps({"messages": prefix or []}))
        (draft.path / "adapter.gguf").write_text(f"{partition}")
        made = Made("v", summary, state)
        artifacts.publish(draft, asset, partition, made, inputs_key="k", inputs={}, settings={}, code_version="1", origin={})


def evaluated(artifacts: ArtifactStore, candidate: str, variant: Variant, score: float) -> None:
    partition = Partition("w", candidate)
    publish(artifacts, graph.EVALS[variant], partition, {"scores": {"function_name_and_args": {"value": score}}})
    if variant is Variant.CUSTOMIZED:
        publish(artifacts, graph.ADAPTER, partition, {})


def chosen(
    artifacts: ArtifactStore, candidate: str | None = None, settings: Settings = SETTINGS
) -> tuple[str, Variant, bool]:
    found = select(settings, artifacts, "w", candidate)
    return found.candidate.id, found.variant, found.promoted


def test_the_winner_of_the_decision_is_served_and_marked_as_not_approved(artifacts: ArtifactStore) -> None:
    evaluated(artifacts, "small", Variant.BASE, 0.9)
    evaluated(artifacts, "tiny", Variant.CUSTOMIZED, 0.8)
    summary = {"verdict": "promote", "candidate": "tiny", "variant": "customized", "approved": False}
    publish(artifacts, graph.DECISION, Partition("w"), summary)
    assert chosen(artifacts) == ("tiny", Variant.CUSTOMIZED, False)


def test_a_winner_with_a_prefix_brings_the_prefix(artifacts: ArtifactStore) -> None:
    evaluated(artifacts, "tiny", Variant.PREFIXED, 0.8)
    shots = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    publish(artifacts, graph.PREFIX, Partition("w", "tiny"), {}, prefix=shots)
    publish(artifacts, graph.DECISION, Partition("w"), {"verdict": "promote", "candidate": "tiny", "variant": "prefixed"})
    found = select(SETTINGS, artifacts, "w")
    assert (found.variant, found.adapter_gguf) == (Variant.PREFIXED, None)
    assert list(found.prefix) == shots
    assert found.prefix_file is not None and found.prefix_file.is_file()


def test_without_a_winner_the_best_customized_model_is_there_to_try(artifacts: ArtifactStore) -> None:
    evaluated(artifacts, "small", Variant.BASE, 0.9)
    evaluated(artifacts, "small", Variant.CUSTOMIZED, 0.5)
    evaluated(artifacts, "tiny", Variant.CUSTOMIZED, 0.7)
    publish(artifacts, graph.DECISION, Partition("w"), {"verdict": "keep", "candidate": None, "variant": None})
    assert chosen(artifacts) == ("tiny", Variant.CUSTOMIZED, False)
    assert chosen(artifacts, "small") == ("small", Variant.CUSTOMIZED, False)
    adapter = select(SETTINGS, artifacts, "w").adapter_gguf
    assert adapter is not None and adapter.read_text() == "w x tiny"


def test_only_a_base_model_is_better_than_nothing(artifacts: ArtifactStore) -> None:
    evaluated(artifacts, "small", Variant.BASE, 0.1)
    assert chosen(artifacts) == ("small", Variant.BASE, False)


def test_nothing_evaluated_says_what_to_run(artifacts: ArtifactStore) -> None:
    with pytest.raises(ArtifactMissing, match=r"Run `flywheel run w` first"):
        select(SETTINGS, artifacts, "w")
