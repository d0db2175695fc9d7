from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from flywheel_assets.settings import Settings, SettingsError, cluster_judges, load_settings, parse_settings

MINIMAL: dict[str, Any] = {"candidates": [{"id": "small", "model": "small.gguf"}]}


def parse(**content: Any) -> Settings:
    return parse_settings({**MINIMAL, **content}, home=Path("/home"), root=Path("/clone"))


def fault(**content: Any) -> str:
    with pytest.raises(SettingsError) as error:
        parse(**content)
    return str(error.value)


def test_the_shipped_file_is_valid() -> None:
    settings = load_settings(Path(__file__).parent.parent / "flywheel.yaml")
    assert [candidate.id for candidate in settings.candidates] == ["smollm2-135m", "smollm2-99m-derived"]


def test_a_typo_is_an_error_that_lists_the_accepted_keys() -> None:
    message = fault(split={"eval_sise": 10})
    assert "split.eval_sise: unknown key" in message
    assert "eval_size" in message


def test_a_typo_inside_a_candidate_names_its_place() -> None:
    message = fault(candidates=[{"id": "small", "model": "a.gguf", "modle": "b"}])
    assert "candidates[0].modle: unknown key" in message
    assert "chat_template" in message


TRAINING_KEYS = "adapter_dim, adapter_dropout, batch_size, device, epochs, finetuning_type, learning_rate, max_rows"


@pytest.mark.parametrize(
    ("content", "key", "accepted"),
    [
        (
            {"workloads": {"router": {"split": {"eval_sise": 3}}}},
            "workloads.router.split.eval_sise",
            "draw, eval_share, eval_size, limit",
        ),
        ({"workloads": {"router": {"splt": {}}}}, "workloads.router.splt", "automation, cleaning, decision"),
        ({"workloads": {"b.r": {"training": {"epoch": 3}}}}, "workloads.b.r.training.epoch", TRAINING_KEYS),
        (
            {"workloads": {"r": {"decision": {"gates": [{"metric": "f1", "flor": 0.5}]}}}},
            "workloads.r.decision.gates[0].flor",
            "against, cost_per_1k_usd, floor",
        ),
        (
            {"candidates": [*MINIMAL["candidates"], {"id": "b", "model": "b.gguf", "training": {"learning_rat": 1}}]},
            "candidates[1].training.learning_rat",
            TRAINING_KEYS,
        ),
        ({"elasticsearch": {"indx": "x"}}, "elasticsearch.indx", "default_workload, fields, index"),
        ({"langfuse": {"enabld": True}}, "langfuse.enabld", "calls_per_minute, correction_score, enabled"),
        ({"cleaning": {"alow": []}}, "cleaning.alow", "allow, drop_refusals"),
        (
            {"decision": {"gates": [{"metric": "f1", "margn": 0.1}]}},
            "decision.gates[0].margn",
            "against, cost_per_1k_usd, floor",
        ),
        (
            {"suites": {"domains": [{"domain": "x", "tool": ["a"]}]}},
            "suites.domains[0].tool",
            "domain, metadata, text, tools",
        ),
        (
            {"prices": {"gpt": {"prompt": 1, "completion": 1, "cache": 2}}},
            "prices.gpt.cache",
            "cached_prompt, completion, prompt",
        ),
        ({"local": {"gpus": 1}}, "local.gpus", "gpu_budget, max_record_bytes"),
        ({"promotion": {"mod": "manual"}}, "promotion.mod", "mode"),
        ({"automaton": {}}, "automaton", "alerts, automation, candidates, cleaning"),
    ],
)
def test_a_typo_is_named_by_its_whole_key_with_what_is_accepted(content: dict[str, Any], key: str, accepted: str) -> None:
    assert f"- {key}: unknown key. Accepted here: {accepted}" in fault(**content)


def test_a_bad_value_of_an_override_is_named_by_its_whole_key() -> None:
    assert "- workloads.router.split.eval_size: Input should be" in fault(workloads={"router": {"split": {"eval_size": 0}}})
    message = fault(candidates=[{"id": "small", "model": "a.gguf", "training": {"epochs": "many"}}])
    assert "- candidates[0].training.epochs: " in message and "(found 'many')" in message


def test_an_unknown_value_names_the_accepted_ones() -> None:
    message = fault(finetune={"mode": "sometimes"})
    assert "finetune.mode" in message
    assert "'always', 'if_needed' or 'never'" in message
    assert "'sometimes'" in message


def test_an_unknown_workload_type_names_the_key_and_the_accepted_ones() -> None:
    message = fault(workloads={"router": {"workload_type": "chat"}})
    assert "workloads.router.workload_type" in message
    assert "'tool_calling', 'structured' or 'generic'" in message and "'chat'" in message


def test_an_unknown_evaluation_type_names_the_key_and_the_accepted_ones() -> None:
    message = fault(evaluation={"tool_eval_type": "vibes"})
    assert "evaluation.tool_eval_type" in message and "'metric' or 'judge'" in message


@pytest.mark.parametrize("content", [{"tool_eval_type": "judge"}, {"tool_eval_type": "vibes"}])
def test_an_evaluation_type_of_one_workload_is_refused_like_the_general_one(content: dict[str, str]) -> None:
    message = fault(workloads={"router": {"evaluation": content}})
    assert "workloads.router" in message and "tool_eval_type" in message and "metric" in message


def test_judged_tool_calls_need_a_judge() -> None:
    message = fault(evaluation={"tool_eval_type": "judge"})
    assert (
        "evaluation.tool_eval_type: 'judge' needs a judge" in message and "`model`" in message and "`candidate`" in message
    )
    assert parse(evaluation={"tool_eval_type": "judge"}, judge={"candidate": "small"}).judge_for("any").name == "small"
    one = {"router": {"evaluation": {"tool_eval_type": "judge"}, "judge": {"model": "http://127.0.0.1/v1"}}}
    assert parse(workloads=one).judge_for("router").is_configured
    assert not parse(workloads=one).judge_for("other").is_configured


def test_a_judge_is_a_url_or_a_candidate_that_exists() -> None:
    assert "not both" in fault(judge={"model": "http://127.0.0.1/v1", "candidate": "small"})
    assert "judge.candidate: 'big' is none of the candidates. Known: small" in fault(judge={"candidate": "big"})
    assert "workloads.router.judge.candidate" in fault(workloads={"router": {"judge": {"candidate": "big"}}})
    assert "judge.model" in fault(judge={"model": "small.gguf"})
    assert "judge.modle: unknown key" in fault(judge={"modle": "http://127.0.0.1/v1"})


def test_a_workload_with_a_judge_of_its_own_inherits_everything_but_who_judges() -> None:
    judge = {"model": "http://127.0.0.1/v1", "model_name": "big", "api_key_env": "KEY", "pairwise": True}
    settings = parse(judge=judge, workloads={"router": {"judge": {"candidate": "small"}}, "off": {"judge": {"model": None}}})
    assert settings.judge_for("other").name == "big"
    own = settings.judge_for("router")
    assert (own.name, own.model, own.api_key_env, own.pairwise) == ("small", None, None, True)
    assert not settings.judge_for("off").is_configured


def test_every_fault_is_listed_at_once() -> None:
    message = fault(split={"eval_size": 0}, training={"epochs": "many"})
    assert "2 fault(s)" in message
    assert "split.eval_size" in message
    assert "training.epochs" in message


def test_a_missing_file_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"flywheel\.yaml does not exist"):
        load_settings(tmp_path / "flywheel.yaml")


def test_broken_yaml_is_one_message_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "flywheel.yaml").write_text("candidates: [\n")
    with pytest.raises(SettingsError, match="line"):
        load_settings(tmp_path / "flywheel.yaml")


@pytest.mark.parametrize(
    "text", ["1: x\n", "null: x\n", "split: {1: x}\n", "workloads: {router: {split: {1: x}}}\n", "workloads: {1: {}}\n"]
)
def test_a_key_that_is_no_text_is_one_message(tmp_path: Path, text: str) -> None:
    (tmp_path / "flywheel.yaml").write_text("candidates: [{id: small, model: small.gguf}]\n" + text)
    with pytest.raises(SettingsError, match="1 fault"):
        load_settings(tmp_path / "flywheel.yaml")


def test_a_config_that_is_a_folder_or_cannot_be_read_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWHEEL_CONFIG", str(tmp_path))
    with pytest.raises(SettingsError, match=r"cannot be read: Is a directory.*FLYWHEEL_CONFIG"):
        load_settings()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FLYWHEEL_CONFIG", str(tmp_path / "file" / "flywheel.yaml"))
    with pytest.raises(SettingsError, match="cannot be read: Not a directory"):
        load_settings()


def test_an_empty_file_says_what_is_needed(tmp_path: Path) -> None:
    (tmp_path / "flywheel.yaml").write_text("")
    with pytest.raises(SettingsError, match="candidates"):
        load_settings(tmp_path / "flywheel.yaml")


def test_two_candidates_may_not_share_an_id() -> None:
    assert "'small' is used twice" in fault(candidates=[MINIMAL["candidates"][0]] * 2)


def test_a_candidate_id_that_is_no_slug_is_refused() -> None:
    assert "candidates[0].id" in fault(candidates=[{"id": "Small Model", "model": "a.gguf"}])


def test_a_hub_id_is_refused_for_the_engine_that_cannot_serve_it() -> None:
    message = fault(candidates=[*MINIMAL["candidates"], {"id": "hub", "model": "HuggingFaceTB/SmolLM2-135M-Instruct"}])
    assert "- candidates[1].model: /clone/HuggingFaceTB/SmolLM2-135M-Instruct is neither a file nor a folder" in message
    assert "Give the path of a GGUF file, or `engine: openai`" in message


def test_a_model_folder_is_accepted_where_it_holds_exactly_one_gguf(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    content = {"candidates": [{"id": "folder", "model": "model"}]}
    with pytest.raises(SettingsError, match=r"candidates\[0\]\.model: the folder .*model holds no GGUF file"):
        parse_settings(content, home=tmp_path, root=tmp_path)
    (folder / "a.gguf").write_text("")
    assert parse_settings(content, home=tmp_path, root=tmp_path).candidate("folder").model == "model"
    (folder / "b.gguf").write_text("")
    with pytest.raises(SettingsError, match=r"holds 2 GGUF files: name one of a\.gguf, b\.gguf"):
        parse_settings(content, home=tmp_path, root=tmp_path)


def test_a_url_needs_the_openai_engine_and_the_engine_a_url() -> None:
    assert "engine: openai" in fault(candidates=[{"id": "remote", "model": "http://127.0.0.1/v1"}])
    assert "needs a `model` that starts with http" in fault(candidates=[{"id": "r", "model": "a.gguf", "engine": "openai"}])


def test_an_unknown_candidate_lists_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"unknown candidate 'big'.*small"):
        parse().candidate("big")


def test_workload_overrides_win_and_the_rest_is_inherited() -> None:
    settings = parse(split={"eval_size": 30, "val_ratio": 0.2}, workloads={"router": {"split": {"eval_size": 7}}})
    assert settings.split_for("router").eval_size == 7
    assert settings.split_for("router").val_ratio == 0.2
    assert settings.split_for("other").eval_size == 30


def test_the_size_of_the_exam_is_auto_or_a_number_and_a_fault_in_it_is_one_line() -> None:
    assert parse().split_for("router").eval_size == "auto"
    settings = parse(split={"eval_size": 30}, workloads={"router": {"split": {"eval_size": "auto"}}})
    assert (settings.split_for("router").eval_size, settings.split_for("other").eval_size) == ("auto", 30)
    for bad in (0, -1, 2.5, True, "many", None):
        message = fault(split={"eval_size": bad})
        assert "1 fault(s)" in message
        assert "- split.eval_size: Input should be auto or a whole number of 1 or more" in message


@pytest.mark.parametrize(
    "split", [{"eval_share": 0}, {"eval_share": 0.6}, {"draw": "even"}, {"max_rows_per_conversation": 0}]
)
def test_terms_of_an_exam_that_make_no_sense_are_refused(split: dict[str, Any]) -> None:
    assert f"- split.{next(iter(split))}: Input should be" in fault(split=split)


def test_candidate_training_wins_over_the_workloads() -> None:
    settings = parse(
        candidates=[{"id": "small", "model": "a.gguf", "training": {"epochs": 3}}],
        workloads={"router": {"training": {"epochs": 2, "batch_size": 8}}},
    )
    training = settings.training_for("router", "small")
    assert (training.epochs, training.batch_size) == (3, 8)


def test_an_override_of_a_workload_is_checked_at_the_door() -> None:
    assert "eval_sise" in fault(workloads={"router": {"split": {"eval_sise": 3}}})


def test_seed_zero_is_a_seed() -> None:
    assert parse(split={"random_seed": 0}).split_for("router").random_seed == 0


def test_secrets_are_named_and_never_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMALL_KEY", "s3cret-value")
    content = {"candidates": [{"id": "r", "model": "http://127.0.0.1/v1", "engine": "openai", "api_key_env": "SMALL_KEY"}]}
    (tmp_path / "flywheel.yaml").write_text(yaml.safe_dump(content))
    settings = load_settings(tmp_path / "flywheel.yaml")
    assert "s3cret-value" not in settings.model_dump_json() + repr(settings)


def test_home_follows_the_environment_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flywheel.yaml").write_text(yaml.safe_dump(MINIMAL))
    monkeypatch.setenv("FLYWHEEL_HOME", "elsewhere")
    settings = load_settings(tmp_path / "flywheel.yaml")
    assert settings.home == tmp_path / "elsewhere"
    assert settings.resolve("$FLYWHEEL_HOME/models/x.gguf") == tmp_path / "elsewhere" / "models" / "x.gguf"
    assert settings.resolve("x.gguf") == tmp_path / "x.gguf"


def test_a_price_table_is_by_any_name_and_a_price_is_complete() -> None:
    assert parse(prices={"gpt-5 large": {"prompt": 2, "completion": 10.5}}).prices["gpt-5 large"].completion == 10.5
    assert "prices.small.completion" in fault(prices={"small": {"prompt": 2}})
    assert "prices.small.prompt" in fault(prices={"small": {"prompt": -2, "completion": 1}})
    for absurd in (-1, math.inf, math.nan, 1e300):
        assert "prices.small.cached_prompt" in fault(
            prices={"small": {"prompt": 2, "completion": 1, "cached_prompt": absurd}}
        )
        assert "prices.small.prompt" in fault(prices={"small": {"prompt": absurd, "completion": 1}})


def test_a_nim_need_not_lie_on_this_machine(tmp_path: Path) -> None:
    (tmp_path / "flywheel.yaml").write_text(
        "platform: nemo\nnims: [{model_name: meta/small, gpus: 1, customization_enabled: false}]\n"
    )
    settings = load_settings(tmp_path / "flywheel.yaml")
    assert [candidate.model for candidate in settings.candidates] == ["meta/small"]


@pytest.mark.parametrize(("budget", "fits"), [(4, True), (3, False)])
def test_a_candidate_and_the_judge_of_the_cluster_must_fit_the_budget_together(budget: int, fits: bool) -> None:
    nim = {"gpus": 1, "tag": "1", "customization_enabled": False}
    content = {
        "platform": "nemo",
        "candidates": [],
        "nims": [{"model_name": "meta/small", **nim}],
        "evaluation": {"tool_eval_type": "judge"},
        "nemo": {"gpu_budget": budget, "judge": {"type": "local", "model_name": "meta/judge", "tag": "1", "gpus": 3}},
    }
    if fits:
        assert [one.model_name for one in cluster_judges(parse(**content))] == ["meta/judge"]
    else:
        assert "'meta/small' and meta-judge, which judges, need 4 GPUs together, and the budget is 3" in fault(**content)
    # Where nothing is judged there, it is never deployed.
    content["evaluation"] = {}
    assert cluster_judges(parse(**content)) == []


def test_a_candidate_that_judges_another_workload_counts_once() -> None:
    nim = {"tag": "1", "customization_enabled": False}
    content = {
        "platform": "nemo",
        "candidates": [],
        "nims": [{"model_name": "meta/small", "gpus": 1, **nim}, {"model_name": "meta/large", "gpus": 2, **nim}],
        "workloads": {"text": {"judge": {"candidate": "meta-large"}}},
    }
    assert [one.model_name for one in cluster_judges(parse(nemo={"gpu_budget": 3}, **content))] == ["meta/large"]
    assert "'meta/small' and meta-large, which judges, need 3 GPUs" in fault(nemo={"gpu_budget": 2}, **content)


@pytest.mark.parametrize("key", ["automation: {min_new_records", "split: {eval_size"])
@pytest.mark.parametrize("value", ["0", "-1", "1.5", "often", "true"])
def test_what_may_be_auto_is_otherwise_a_whole_number_of_one_or_more(tmp_path: Path, key: str, value: str) -> None:
    file = tmp_path / "flywheel.yaml"
    file.write_text(f"candidates: [{{id: remote, model: 'http://127.0.0.1:1/v1', engine: openai}}]\n{key}: {value}}}\n")
    with pytest.raises(SettingsError, match="auto or a whole number of 1 or more"):
        load_settings(file)
