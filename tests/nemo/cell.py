"""One cell on a cluster without Dagster, as a process that can be killed: base evaluation, training, customized one."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from flywheel_assets.core.rows import Answer, EvalRow, Variant
from flywheel_assets.resources.nemo import polling
from flywheel_assets.resources.nemo.platform import NemoPlatform
from flywheel_assets.resources.platform import Adapter, TrainingOrder
from flywheel_assets.settings import Settings, parse_settings

MODEL, TARGET = "meta/small", "meta/small@2.0"


def settings_of(nemo: dict[str, Any], folder: Path) -> Settings:
    """A flywheel with one NIM."""
    nim = {"model_name": MODEL, "gpus": 1, "tag": "1", "customization_enabled": True}
    content = {
        "platform": "nemo",
        "nemo": {"retry_s": 20, **nemo},
        "nims": [{**nim, "customizer_configs": {"target": TARGET}}],
    }
    return parse_settings(content, home=folder / "home", root=folder)


def run_cell(nemo: dict[str, Any], folder: Path, owner: str) -> None:
    """The cell from its start to its end; raises what goes wrong."""
    polling.SHORTEST_S = 0.1
    settings = settings_of(nemo, folder)
    (candidate,) = settings.candidates
    evaluation = settings.evaluation_for("w")
    rows = [
        EvalRow(f"e{i}", f"e{i}", "c", {"messages": [{"role": "user", "content": f"q{i}"}]}, Answer("a"), "single_turn")
        for i in range(5)
    ]
    train = folder / "train.jsonl"
    if not train.exists():
        row = {"row_id": "r", "prompt": [{"role": "user", "content": "q"}], "tools": "[]"}
        train.write_text(json.dumps({**row, "completion": [{"role": "assistant", "content": "a"}]}) + "\n")
    order = TrainingOrder([train], [], settings.training_for("w", candidate.id), folder / "out", folder, "f" * 32)

    def ask(platform: NemoPlatform, adapter: Adapter | None, variant: Variant) -> None:
        with platform.deployed(candidate, adapter=adapter, owner=owner) as endpoint:
            platform.ask(endpoint, rows, variant=variant, prefix=(), settings=evaluation, progress=lambda *counts: None)

    with NemoPlatform.of(settings).run() as platform:
        ask(platform, None, Variant.BASE)
        context: Any = SimpleNamespace(run_id=owner)
        adapter = platform.train(context, candidate, order).remote_model
        ask(platform, adapter, Variant.CUSTOMIZED)
