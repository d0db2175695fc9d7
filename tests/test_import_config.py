"""A blueprint's file becomes a working flywheel.yaml, and nothing of it is dropped in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from flywheel_assets.cli import app
from flywheel_assets.cli_import import import_config
from flywheel_assets.settings import Settings, SettingsError, load_settings
from flywheel_assets.settings.blueprint import convert

SOURCE = Path(__file__).parent / "fixtures" / "blueprint_config.yaml"


def source() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(SOURCE.read_text())
    return content


def settings_of(target: Path) -> Settings:
    import_config(SOURCE, target, overwrite=False)
    return load_settings(target)


def test_the_file_that_comes_of_it_works_and_means_the_same(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "flywheel.yaml")
    assert settings.platform == "nemo"
    assert (settings.nemo.base_url, settings.nemo.namespace) == ("http://nemo.test", "dfwbp")
    first, second, third = settings.candidates
    assert (first.id, first.gpus, first.trainable, first.context_length) == ("meta-llama-3-2-1b-instruct", 1, True, 8192)
    assert first.nim is not None
    assert first.nim.customizer_configs is not None
    assert first.nim.customizer_configs.target == "meta/llama-3.2-1b-instruct@2.0"
    assert second.nim is not None
    assert second.nim.customizer_configs is not None
    assert third.nim is not None
    assert not third.nim.is_deployed_here
    training = settings.training_for("any", first.id)
    assert (training.epochs, training.batch_size, training.learning_rate) == (2, 16, 0.0001)
    assert (training.adapter_dim, training.adapter_dropout, training.max_seq_length) == (32, 0.1, 8192)
    split = settings.split
    assert (split.eval_size, split.val_ratio, split.min_total_records, split.random_seed) == (20, 0.1, 50, 0)
    assert settings.prefix.shots == 3
    assert settings.nemo.judge is not None
    assert (settings.nemo.judge.type, settings.nemo.judge.api_key_env) == ("remote", "JUDGE_API_KEY")


def test_every_key_is_carried_over_or_noted(tmp_path: Path) -> None:
    notes = dict(convert(source()).notes)
    assert set(notes) == {
        "nmp_config.nim_parallelism",
        "nims[0].customizer_configs.num_workers",
        "nims[1].customizer_configs",
        "nims[3]",
        "data_split_config.limit",
        "data_split_config.parse_function_arguments",
        "data_split_config.stratify_enabled",
        "data_split_config.min_samples_per_class",
        "data_split_config.rare_class_threshold",
        "icl_config.max_context_length",
        "icl_config.reserved_tokens",
        "icl_config.min_examples",
        "icl_config.example_selection",
        "icl_config.similarity_config",
        "evaluation_config.workload_type",
        "lora_config.sequence_packing_enabled",
        "logging_config",
        "mlflow_config",
    }
    target = tmp_path / "flywheel.yaml"
    import_config(SOURCE, target, overwrite=False)
    assert all(f"#   {key}: " in target.read_text() for key in notes)


def test_a_key_nobody_knows_is_noted(tmp_path: Path) -> None:
    notes = dict(convert({**source(), "brand_new": {"x": 1}}).notes)
    assert notes["brand_new"] == "no equivalent"


def test_older_names_of_the_judge_are_understood_and_its_key_is_not_copied() -> None:
    judge = {"type": "remote", "url": "http://j/v1/chat/completions", "model_id": "m", "api_key": "s3cret"}
    done = convert({**source(), "llm_judge_config": judge})
    assert done.content["nemo"]["judge"] == {"type": "remote", "url": "http://j/v1/chat/completions", "model_name": "m"}
    assert "llm_judge_config.api_key" in dict(done.notes)
    assert "s3cret" not in json.dumps(done.content)


def test_a_judge_of_tool_calls_is_taken_over_or_noted() -> None:
    done = convert({**source(), "evaluation_config": {"workload_type": "auto", "tool_eval_type": "tool-calling-judge"}})
    judged = done.content.get("evaluation", {}).get("tool_eval_type") == "judge"
    assert judged != ("evaluation_config.tool_eval_type" in dict(done.notes))


@pytest.mark.parametrize("content", ["nims: []\n", "- a\n", "a: [\n", "nims: [{}]\nnmp_config: {}\n"])
def test_a_file_that_is_none_is_refused_with_its_name(tmp_path: Path, content: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(content)
    with pytest.raises(SettingsError, match=r"config\.yaml"):
        import_config(file, tmp_path / "flywheel.yaml", overwrite=False)
    assert not (tmp_path / "flywheel.yaml").exists()


def test_a_file_that_is_there_is_not_overwritten_unasked(tmp_path: Path) -> None:
    target = tmp_path / "flywheel.yaml"
    target.write_text("mine")
    with pytest.raises(SettingsError, match="--force"):
        import_config(SOURCE, target, overwrite=False)
    assert target.read_text() == "mine"
    import_config(SOURCE, target, overwrite=True)
    assert load_settings(target).platform == "nemo"


def test_the_command_says_what_it_wrote_and_what_it_could_not(tmp_path: Path) -> None:
    target = tmp_path / "flywheel.yaml"
    result = CliRunner().invoke(app, ["import-config", str(SOURCE), "--out", str(target), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["content"]["nemo"]["namespace"] == "dfwbp"
    shown = CliRunner().invoke(app, ["import-config", str(SOURCE), "--out", str(target), "--force"])
    assert shown.exit_code == 0, shown.output
