"""The files of the datasets: what is in a line, who can read it, and which files are left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from flywheel_assets.core.datasets import (
    SplitPolicy,
    eval_dataset_name,
    iter_training_rows,
    read_eval_rows,
    train_dataset_name,
    training_files,
    training_shards,
)
from flywheel_assets.core.rows import ToolCall
from tests.core.datasets.workbench import Workbench, call, log_line, tool

POLICY = SplitPolicy(eval_size=20, min_total_records=2, eval_share=0.3, val_ratio=0.3)

CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Weather"}, {"type": "text", "text": "in Bern?"}]},
    call("get_weather"),
    {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    {"role": "user", "content": "And in Rome?", "name": "ann"},
]


def different_lines(count: int) -> list[dict[str, Any]]:
    """Lines whose tools, messages and options have nothing in common that Arrow could hold on to."""
    shapes: list[dict[str, Any]] = [
        {},
        {"tools": None, "answer": {"role": "assistant", "content": "Sunny."}},
        {"tools": [tool("a", x={"type": "integer", "default": 1, "enum": [1, 2]})], "tool_choice": "auto"},
        {"tools": [tool("b", x={"type": ["string", "null"], "default": "one", "enum": ["1"]}), tool("c", y={})]},
        {"tool_choice": {"type": "function", "function": {"name": "get_weather"}}, "stream": True},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}},
    ]
    lines = []
    for n in range(count):
        messages = [*(CONVERSATION if n % 4 == 0 else []), {"role": "user", "content": f"Question {n}, 2024-01-01"}]
        lines.append(log_line(n, **{"messages": messages, **shapes[n % len(shapes)]}))
    return lines


def test_a_training_row_is_prompt_completion_and_tools(workbench: Workbench) -> None:
    workbench.add([log_line(n, messages=[*CONVERSATION, {"role": "user", "content": str(n)}]) for n in range(30)], POLICY)
    row = next(iter_training_rows(workbench.path("train")))
    assert set(row) == {"row_id", "prompt", "completion", "tools"}
    assert [message["role"] for message in row["prompt"]] == ["system", "user", "assistant", "tool", "user", "user"]
    assert row["prompt"][1]["content"] == "Weather\nin Bern?"
    assert row["prompt"][2]["content"] == ""
    assert row["prompt"][2]["tool_calls"][0]["function"] == {"name": "get_weather", "arguments": '{"city":"Bern"}'}
    assert row["prompt"][3]["tool_call_id"] == "call_1"
    assert row["prompt"][4]["name"] == "ann"
    [answer] = row["completion"]
    assert (answer["role"], answer["content"]) == ("assistant", "")
    assert isinstance(answer["tool_calls"][0]["function"]["arguments"], str)
    assert orjson.loads(row["tools"])[0]["function"]["name"] == "get_weather"


def test_bodies_copied_and_bodies_rewritten_train_alike(workbench: Workbench) -> None:
    extra = {"role": "user", "content": "Weather?", "name": None}
    lines = [
        log_line(n, messages=[extra if n % 2 else {"role": "user", "content": "Weather?"}], answer=None) for n in range(40)
    ]
    workbench.add(lines, SplitPolicy(eval_size=1, min_total_records=2, eval_share=1e-9, val_ratio=0.0))
    prompts = {orjson.dumps([row["prompt"], row["tools"]]) for row in iter_training_rows(workbench.path("train"))}
    assert prompts == {
        orjson.dumps(
            [
                [{"content": "Weather?", "role": "user"}],
                orjson.dumps([tool("get_weather")], option=orjson.OPT_SORT_KEYS).decode(),
            ]
        )
    }


def test_an_eval_row_is_the_logged_request_and_its_reference(workbench: Workbench) -> None:
    lines = different_lines(120)
    workbench.add(lines, POLICY)
    by_trace = {line["id"]: line for line in lines}
    rows = read_eval_rows(workbench.path("base"))
    assert len(rows) == 20
    for row in rows:
        logged = by_trace[row.trace_id]["request"]
        assert row.request == {name: value for name, value in logged.items() if name != "stream" and value is not None}
        answer = by_trace[row.trace_id]["response"]["choices"][0]["message"]
        assert row.reference.content == answer["content"]
        assert list(row.reference.tool_calls) == [
            ToolCall(c["function"]["name"], c["function"]["arguments"]) for c in answer.get("tool_calls", ())
        ]
        assert row.suite_turns == ("multi_turn" if len(logged["messages"]) > 1 else "single_turn")
        assert len(row.row_id) == 32 and len(row.cluster) == 16


def test_accepted_answers_of_a_record_come_with_its_eval_row(workbench: Workbench) -> None:
    lines = [
        log_line(n, accepted_answers=[{"get_weather": {"city": [str(n), n]}}]) if n % 3 else log_line(n) for n in range(60)
    ]
    lines.append(log_line(99, accepted_answers="nonsense"))
    workbench.add(lines, POLICY)
    rows = read_eval_rows(workbench.path("base"))
    assert [row.accepted is not None for row in rows] == sorted((row.accepted is not None for row in rows), reverse=True)
    for row in rows:
        number = int(row.trace_id[1:])
        expected = ({"get_weather": {"city": [str(number), number]}},) if number % 3 and number < 60 else None
        assert row.accepted == expected


@pytest.fixture
def load(tmp_path: Path) -> Any:
    """`datasets.load_dataset("json")` of these files, uncached."""
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()

    def load_files(files: list[Path]) -> Any:
        names = [str(path) for path in files]
        return datasets.load_dataset("json", data_files=names, split="train", cache_dir=str(tmp_path / "cache"))

    return load_files


def test_load_dataset_reads_every_file(workbench: Workbench, load: Any) -> None:
    workbench.add(different_lines(200), POLICY)
    for split in ("train", "validation"):
        loaded = load(training_files(workbench.path("train"), split))
        rows = list(iter_training_rows(workbench.path("train"), split))
        assert [without_nulls(row) for row in loaded] == [without_nulls(row) for row in rows]
    loaded = load([workbench.path("base") / "eval_data.jsonl"])
    assert [row["row_id"] for row in loaded] == [row.row_id for row in read_eval_rows(workbench.path("base"))]
    requests = [{name: value for name, value in row["request"].items() if value is not None} for row in loaded]
    assert requests == [row.request for row in read_eval_rows(workbench.path("base"))]


def test_load_dataset_reads_fields_that_first_appear_in_a_later_file(workbench: Workbench, load: Any) -> None:
    plain = {"tools": None, "answer": {"role": "assistant", "content": "2024-01-01"}}
    policy = SplitPolicy(eval_size=5, min_total_records=2, eval_share=0.05, val_ratio=0.0)
    workbench.add([log_line(n, **plain) for n in range(100)], policy)
    workbench.add(
        [log_line(n, messages=[*CONVERSATION, {"role": "user", "content": str(n)}]) for n in range(100, 160)], policy
    )
    files = training_files(workbench.path("train"))
    assert len(load(files)) == len(list(iter_training_rows(workbench.path("train"))))


@pytest.mark.parametrize("kind", ["train", "eval"])
def test_load_dataset_reads_fields_that_first_appear_after_ten_megabytes(workbench: Workbench, load: Any, kind: str) -> None:
    long = "many words " * 20_000
    plain = {"tools": None, "answer": {"role": "assistant", "content": "Yes."}}
    lines = [log_line(n, messages=[{"role": "user", "content": f"{n} {long}"}], **plain) for n in range(60)]
    lines += [
        log_line(n, messages=[*CONVERSATION, {"role": "user", "content": str(n)}], tool_choice="auto") for n in range(60, 90)
    ]
    share = 0.999999 if kind == "eval" else 1e-9
    workbench.add(lines, SplitPolicy(eval_size=90, min_total_records=2, eval_share=share, val_ratio=0.0))
    if kind == "train":
        [file] = training_files(workbench.path("train"))
    else:
        file = workbench.path("base") / "eval_data.jsonl"
        order = sorted(file.read_bytes().splitlines(keepends=True)[1:], key=lambda line: b"Be brief" in line)
        file.write_bytes(file.read_bytes().splitlines(keepends=True)[0] + b"".join(order))
    assert len(load([file])) == 90


def test_files_whose_rows_stay_are_hard_links(workbench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flywheel_assets.core.datasets.appending.OPEN_SEGMENT_RECORDS", 1)
    monkeypatch.setattr(training_shards, "SHARD_ROWS", 1)
    workbench.add([log_line(n) for n in range(50)], POLICY)
    summary = workbench.add([log_line(n) for n in range(50, 90)], POLICY)
    assert (summary.shards_reused, summary.shards_written) == (2, 2)
    for name in ("train/00000.jsonl", "validation/00000.jsonl"):
        assert (workbench.path("train", 1) / name).samefile(workbench.path("train", 2) / name)
    for name in ("segments/00000.zst", "index/00000.parquet"):
        assert (workbench.path("records", 1) / name).samefile(workbench.path("records", 2) / name)


def test_only_the_file_that_loses_a_row_is_written_again(workbench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flywheel_assets.core.datasets.appending.OPEN_SEGMENT_RECORDS", 1)
    monkeypatch.setattr(training_shards, "SHARD_ROWS", 1)
    policy = SplitPolicy(eval_size=5, min_total_records=2, eval_share=1e-9, val_ratio=0.0)
    workbench.add([log_line(n) for n in range(20)], policy)
    workbench.add([log_line(n) for n in range(20, 40)], policy)
    summary = workbench.add([log_line(99, id="t25")], policy)
    assert (summary.shards_reused, summary.shards_written) == (1, 2)
    assert len(list(iter_training_rows(workbench.path("train")))) == 40


def test_nothing_new_keeps_every_version(workbench: Workbench) -> None:
    first = workbench.add(different_lines(60), POLICY)
    second = workbench.add([], POLICY)
    assert (first.base_version, first.train_version) == (second.base_version, second.train_version)
    assert second.shards_written == 0


def test_datasets_are_named_after_workload_and_version(workbench: Workbench) -> None:
    summary = workbench.add(different_lines(60), POLICY)
    assert summary.eval_name == eval_dataset_name("w", summary.base_version) == f"flywheel-eval-w-{summary.base_version}"
    assert (
        summary.train_name == train_dataset_name("w", summary.train_version) == f"flywheel-train-w-{summary.train_version}"
    )
    assert orjson.loads(orjson.dumps(summary.to_json()))["eval_name"] == summary.eval_name


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_nulls(item) for name, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value
