from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.core.graph import ADAPTER, EVALS, Partition
from flywheel_assets.core.rows import Variant
from flywheel_assets.resources.artifacts import Artifact
from flywheel_assets.resources.telemetry import Ended, Phase, PhaseKind, PhaseStatus
from flywheel_assets.resources.telemetry.mlflow.address import address_of
from flywheel_assets.resources.telemetry.mlflow.facts import (
    PARAMS,
    VALUE_CHARS,
    curve_of,
    description_of,
    metrics_of,
    outcome_tags,
    params_of,
    scores_by_variant,
    tags_of,
)
from flywheel_assets.settings import SettingsError, parse_settings

CELL = Partition("router", "small")
BASE = EVALS[Variant.BASE]


def phase(name: str = ADAPTER, **settings: Any) -> Phase:
    inputs = {name: {"datasets/train@router": "v1"}}
    return Phase(PhaseKind.TRAINING, name, (name,), CELL, "run1", "turn1", "http://ui/1", 100.0, {name: settings}, inputs)


def artifact(folder: Path, name: str, summary: dict[str, Any]) -> Artifact:
    (folder / "manifest.json").write_text(json.dumps({"asset": name}))
    manifest = {"data_version": "d1", "inputs_key": "k1", "state": "ok", "summary": summary}
    return Artifact(name, CELL, "v1", folder, manifest)


def ended(*artifacts: Artifact, **rest: Any) -> Ended:
    return Ended(PhaseStatus.FINISHED, 110.0, artifacts=artifacts, **rest)


def settings(**mlflow: Any) -> Any:
    content = {"candidates": [{"id": "a", "model": "http://a", "engine": "openai"}], "telemetry": {"mlflow": mlflow}}
    return parse_settings(content, home=Path("/home/me"), root=Path("/home/me"))


def test_settings_become_flat_parameters_that_every_server_takes() -> None:
    found = params_of(phase(training={"epochs": 2, "rate": 0.1}, prompt="x" * 9000, gates=[{"metric": "f1"}]))
    assert found["training.epochs"] == "2" and found["gates"] == '[{"metric":"f1"}]'
    assert len(found["prompt"]) == VALUE_CHARS
    assert len(params_of(phase(**{f"key{number}": number for number in range(5000)}))) == PARAMS


def test_no_password_in_a_url_reaches_mlflow(tmp_path: Path) -> None:
    url = "https://ada:s3cret@models.example/v1"
    done = ended(artifact(tmp_path, ADAPTER, {}), error=f"{url} did not answer", facts={"judge": url})
    told = [params_of(phase(judge=url)), outcome_tags(done), {"note": description_of(phase(), done)}]
    assert "s3cret" not in str(told) and "models.example" in str(told)


def test_scores_come_with_their_intervals(tmp_path: Path) -> None:
    score = {"value": 0.8, "low": 0.7, "high": 0.9, "n": 40}
    summary = {"scores": {"f1": score}, "latency_ms": {"p50": 12.0, "p95": None}, "cost_per_1k_usd": 0.25, "n": 40}
    found = metrics_of(ended(artifact(tmp_path, BASE, summary)))
    assert found == {
        **{"f1": 0.8, "f1_low": 0.7, "f1_high": 0.9, "f1_n": 40.0},
        **{"latency_ms_p50": 12.0, "cost_per_1k_usd": 0.25, "n": 40.0},
    }
    assert scores_by_variant(ended(artifact(tmp_path, BASE, summary))) == {"base/f1": 0.8}


def test_what_may_speak_of_the_traffic_is_no_metric(tmp_path: Path) -> None:
    summary = {"tools": {"transfer_money_to_bob": 3}, "checks": [{"details": {"rows": 1}}], "rows": {"used": 5}}
    assert metrics_of(ended(artifact(tmp_path, BASE, summary))) == {"rows_used": 5.0}


def test_a_judge_s_facts_are_metrics_and_its_name_a_tag() -> None:
    done = ended(facts={"judge": "big", "asked": 3, "agreement": {"value": 0.9, "low": 0.8, "labels": {"right": 2}}})
    assert metrics_of(done) == {"asked": 3.0, "agreement": 0.9, "agreement_low": 0.8, "agreement_labels_right": 2.0}
    assert outcome_tags(done) == {"flywheel/fact/judge": "big"}


def test_the_loss_curve_keeps_its_steps_and_runs_from_begin_to_end(tmp_path: Path) -> None:
    curve = [{"step": 5, "loss": 2.0}, {"step": 10, "loss": 1.0, "learning_rate": 0.1}]
    points = curve_of(phase(), ended(artifact(tmp_path, ADAPTER, {"loss_curve": curve})))
    assert [(point.step, point.name, point.value, point.at) for point in points] == [
        *((5, "loss", 2.0, 105.0), (10, "loss", 1.0, 110.0)),
        (10, "learning_rate", 0.1, 110.0),
    ]


def test_the_steps_of_a_real_trainer_are_floats_and_told_as_whole_numbers(tmp_path: Path) -> None:
    curve = [{"step": 1.0, "loss": 2.0}, {"step": 2.0, "loss": 1.0}]
    steps = [point.step for point in curve_of(phase(), ended(artifact(tmp_path, ADAPTER, {"loss_curve": curve})))]
    assert steps == [1, 2] and {type(step) for step in steps} == {int}


def test_a_number_that_is_none_is_left_out(tmp_path: Path) -> None:
    assert metrics_of(ended(artifact(tmp_path, BASE, {"n": math.nan, "errors": math.inf, "ok": True, "rows": 3}))) == {
        "rows": 3.0
    }


def test_what_was_made_is_named_by_folder_version_and_a_sha256_that_anybody_can_check(tmp_path: Path) -> None:
    tags = outcome_tags(ended(artifact(tmp_path, ADAPTER, {})))
    assert tags["flywheel/artifact/adapter"] == str(tmp_path)
    assert tags["flywheel/sha256/adapter"] == hashlib.sha256((tmp_path / "manifest.json").read_bytes()).hexdigest()


def test_a_run_carries_the_tag_of_dagster_mlflow_and_its_inputs() -> None:
    tags = tags_of(phase())
    assert tags["dagster_run_id"] == "run1" and tags["flywheel/run"] == "turn1"
    assert tags["flywheel/input/datasets/train:router"] == "v1"
    assert "http://ui/1" in description_of(phase())


def test_the_tracking_uri_is_the_settings_then_the_environments_then_a_file_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    own = address_of(settings())
    assert own.uri == "sqlite:////home/me/mlflow/mlflow.db" and own.page_of("1", "ab").startswith("http://localhost:5000/#/")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ada:s3cret@there:5000/")
    assert (address_of(settings()).shown, address_of(settings()).is_server) == ("http://there:5000", True)
    assert address_of(settings()).page_of("1", "ab") == "http://there:5000/#/experiments/1/runs/ab"
    assert address_of(settings(tracking_uri="postgresql://there/db")).uri == "postgresql://there/db"


@pytest.mark.parametrize("faulty", [{"experiment": "flywheel"}, {"registered_model": "a/{workload}"}, {"enable": True}])
def test_a_name_that_mlflow_would_refuse_is_refused_when_the_file_is_read(faulty: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(faulty))):
        settings(**faulty)
