"""A config.yaml of the reference workflow as a flywheel.yaml, and a word for whatever has no equivalent.

What belongs here: which key becomes which, and why one becomes none. What does not: reading and writing files (`cli`).
Nothing is dropped in silence: every key that is not carried over is in the notes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flywheel_assets.settings.nemo import CustomizerConfig, NemoJudge, Nim
from flywheel_assets.settings.split import SplitSettings
from flywheel_assets.settings.training import TrainingSettings

Content = dict[str, Any]

_ADDRESSES = {
    "nemo_base_url": "base_url",
    "nim_base_url": "nim_url",
    "datastore_base_url": "datastore_url",
    "nmp_namespace": "namespace",
}
_WITHOUT_EQUIVALENT = {
    "nmp_config.nim_parallelism": "`nemo.gpu_budget` says how many NIMs run side by side, by their GPUs",
    "data_split_config.parse_function_arguments": "always done: NeMo is given arguments as objects",
    "data_split_config.stratify_enabled": "always done: eval rows are balanced by tool (`split.rare_class_rows`)",
    "data_split_config.min_samples_per_class": "a class of one row is no error here (`split.rare_class_rows`)",
    "data_split_config.rare_class_threshold": "`split.rare_class_rows` counts otherwise; its default was kept",
    "icl_config.max_context_length": "`prefix.max_chars` bounds the examples, in characters",
    "icl_config.reserved_tokens": "`prefix.max_chars` bounds the examples, in characters",
    "icl_config.min_examples": "a prefix has `prefix.shots` examples, or fewer where they are too long",
    "icl_config.example_selection": "examples are a fixed draw from training rows",
    "icl_config.similarity_config": "examples are a fixed draw from training rows",
    "lora_config.sequence_packing_enabled": "not set: the Customizer's default",
    "logging_config": "Dagster keeps the log of every run",
    "mlflow_config": "results are assets in Dagster",
    "llm_judge_config.api_key": "a secret: put it into the environment and name the variable in `nemo.judge.api_key_env`",
}
_TOOL_EVAL = {"tool-calling-metric": "metric", "tool-calling-judge": "judge"}
_MOST_SHOTS = 16


@dataclass(slots=True)
class Conversion:
    """What a config.yaml became: the content of a flywheel.yaml, and notes as `(key, what happened to it)`."""

    content: Content = field(default_factory=lambda: {"version": 1, "platform": "nemo"})
    notes: list[tuple[str, str]] = field(default_factory=list)

    def lost(self, key: str, why: str | None = None) -> None:
        """Note a key that was not carried over."""
        known = _WITHOUT_EQUIVALENT.get(key) or _WITHOUT_EQUIVALENT.get(key.partition(".")[0])
        self.notes.append((key, why or known or "no equivalent"))


def convert(config: Mapping[str, Any]) -> Conversion:
    """The flywheel.yaml of a config.yaml. Raises ValueError where there is nothing to convert."""
    if not config.get("nims") or "nmp_config" not in config:
        raise ValueError("it has no `nims` or no `nmp_config`, so it is no config.yaml of the reference workflow")
    done = Conversion()
    _cluster(done, config)
    _nims(done, config["nims"])
    _taken(done, config, "data_split_config", "split", SplitSettings)
    _taken(done, config, "training_config", "training", TrainingSettings, inside=("lora",))
    training = config.get("training_config") or {}
    lora = {**(config.get("lora_config") or {}), **(training.get("lora") or {})}
    _taken(done, {"lora_config": lora}, "lora_config", "training", TrainingSettings)
    _prefix(done, config.get("icl_config") or {})
    _evaluation(done, config.get("evaluation_config") or {})
    known = {"nmp_config", "nims", "llm_judge_config", "data_split_config", "training_config", "lora_config"}
    for key in config:
        if key not in known | {"icl_config", "evaluation_config"}:
            done.lost(key)
    return done


def _cluster(done: Conversion, config: Mapping[str, Any]) -> None:
    nemo: Content = {}
    for key, value in config["nmp_config"].items():
        if key in _ADDRESSES:
            nemo[_ADDRESSES[key]] = value
        else:
            done.lost(f"nmp_config.{key}")
    if judge := config.get("llm_judge_config"):
        nemo["judge"] = _judge(done, judge)
    done.content["nemo"] = nemo


def _judge(done: Conversion, judge: Mapping[str, Any]) -> Content:
    kept: Content = {}
    for key, value in judge.items():
        name = {"deployment_type": "type", "model_id": "model_name"}.get(key, key)
        if name in NemoJudge.model_fields:
            kept[name] = value
        else:
            done.lost(f"llm_judge_config.{key}")
    return kept


def _nims(done: Conversion, nims: list[Mapping[str, Any]]) -> None:
    made: dict[str, Content] = {}
    for number, nim in enumerate(nims):
        where, model = f"nims[{number}]", str(nim["model_name"])
        if model in made:
            done.lost(where, f"{model} is listed twice; the first entry counts")
            continue
        kept = {key: value for key, value in nim.items() if key in Nim.model_fields and value is not None}
        for key in nim:
            if key not in Nim.model_fields:
                done.lost(f"{where}.{key}")
        if "gpus" not in kept and kept.pop("tag", None) is not None:
            done.lost(
                f"{where}.tag", "without `gpus` it is taken for a NIM that runs already, which is never started or ended"
            )
        if kept.get("customization_enabled"):
            kept["customizer_configs"] = _customizer(done, where, model, kept.get("customizer_configs"))
        made[model] = kept
    done.content["nims"] = list(made.values())


def _customizer(done: Conversion, where: str, model: str, config: Mapping[str, Any] | None) -> Content:
    if not config:
        target = f"{model}@2.0"
        done.lost(
            f"{where}.customizer_configs", f"absent: target {target} was assumed; `flywheel doctor` says whether it exists"
        )
        return {"target": target}
    for key in config:
        if key not in CustomizerConfig.model_fields:
            done.lost(f"{where}.customizer_configs.{key}")
    return {key: value for key, value in config.items() if key in CustomizerConfig.model_fields}


def _taken(
    done: Conversion, config: Mapping[str, Any], block: str, into: str, section: type, inside: tuple[str, ...] = ()
) -> None:
    """Keys of a block that mean the same here; a null means the default, as it does there."""
    accepted = section.model_fields  # type: ignore[attr-defined]
    for key, value in (config.get(block) or {}).items():
        if key in inside:
            continue
        if key not in accepted:
            done.lost(f"{block}.{key}")
        elif value is not None:
            done.content.setdefault(into, {})[key] = value
    if block == "data_split_config" and (config.get(block) or {}).get("limit") is not None:
        done.notes.append(("data_split_config.limit", "bounds training rows here, not the records that are read"))


def _prefix(done: Conversion, icl: Mapping[str, Any]) -> None:
    for key, value in icl.items():
        if key == "max_examples":
            done.content["prefix"] = {"shots": max(1, min(int(value), _MOST_SHOTS))}
        else:
            done.lost(f"icl_config.{key}")


def _evaluation(done: Conversion, evaluation: Mapping[str, Any]) -> None:
    for key, value in evaluation.items():
        if key == "workload_type" and value == "auto":
            continue  # That is what happens here without being asked for.
        if key == "workload_type":
            done.lost("evaluation_config.workload_type", "told for each workload: `workloads.<slug>.workload_type`")
        elif key == "tool_eval_type":
            wanted = _TOOL_EVAL.get(str(value), "metric")
            if wanted == "judge" and "judge" not in done.content.get("nemo", {}):
                done.lost("evaluation_config.tool_eval_type", "`llm_judge_config` names no judge: metrics score tool calls")
            else:
                done.content["evaluation"] = {"tool_eval_type": wanted}
        else:
            done.lost(f"evaluation_config.{key}")
