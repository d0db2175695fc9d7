from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.trainer.failure import FailureKind, TrainerError
from flywheel_assets.trainer.rows import IGNORED, Example, Row, as_rendered, encode, fingerprint, read_rows, select
from tests.trainer.tiny_model import weather_row, write_rows

EOS = 0


def render(messages: list[dict[str, Any]], tools: Any, prompt: bool) -> str:
    text = "".join(f"[{m['role']}]{m.get('content') or json.dumps(m.get('tool_calls'))}\x00\n" for m in messages)
    return text + ("[assistant]" if prompt else "")


def tokenize(text: str) -> list[int]:
    return list(text.encode())


def row(prompt: str, completion: str) -> Row:
    return Row("r", [{"role": "user", "content": prompt}], [{"role": "assistant", "content": completion}], None)


def test_only_the_completion_counts_in_the_loss() -> None:
    example = encode(row("ask", "answer"), render, tokenize, eos_id=EOS)
    counted = [token for token, label in zip(example.input_ids, example.labels, strict=True) if label != IGNORED]
    assert bytes(counted) == b"answer\x00"
    assert bytes(example.input_ids) == b"[user]ask\x00\n[assistant]answer\x00"
    assert example.trained_tokens == len(counted)


def test_what_the_template_writes_after_the_end_token_is_not_trained() -> None:
    assert encode(row("ask", "answer"), render, tokenize, eos_id=EOS).input_ids[-1] == EOS


def test_a_template_without_an_end_token_gets_one_or_the_model_would_never_stop() -> None:
    def bare(messages: list[dict[str, Any]], tools: Any, prompt: bool) -> str:
        return " ".join(m["content"] for m in messages) + ("" if not prompt else " ")

    assert encode(row("a", "b"), bare, tokenize, eos_id=EOS).input_ids == [*b"a ", *b"b", EOS]


def test_a_template_that_shows_training_another_prompt_than_serving_is_refused() -> None:
    def fickle(messages: list[dict[str, Any]], tools: Any, prompt: bool) -> str:
        return f"{len(messages)} messages"

    with pytest.raises(TrainerError, match="another prompt than serving") as caught:
        encode(row("a", "b"), fickle, tokenize, eos_id=EOS)
    assert caught.value.kind is FailureKind.TEMPLATE


def test_arguments_are_parsed_and_whole_floats_written_as_the_server_writes_them() -> None:
    call = {"id": "1", "function": {"name": "f", "arguments": '{"b":2.0,"a":[1e3,0.5],"s":"2.0"}'}}
    message = as_rendered({"role": "assistant", "content": None, "tool_calls": [call]})
    assert json.dumps(message["tool_calls"][0]["function"]["arguments"]) == '{"b": 2, "a": [1000, 0.5], "s": "2.0"}'


def test_arguments_that_are_no_json_stay_text_and_empty_ones_are_an_empty_object() -> None:
    def arguments(text: str) -> Any:
        call = {"id": "1", "function": {"name": "f", "arguments": text}}
        return as_rendered({"role": "assistant", "tool_calls": [call]})["tool_calls"][0]["function"]["arguments"]

    assert arguments("{broken") == "{broken"
    assert arguments(" ") == {}


def test_shards_are_read_in_order_and_tools_are_parsed(tmp_path: Path) -> None:
    files = [str(write_rows(tmp_path / f"{i}.jsonl", [weather_row(2 * i), weather_row(2 * i + 1)])) for i in range(2)]
    rows = read_rows(files)
    assert [r.row_id for r in rows] == ["row-0", "row-1", "row-2", "row-3"]
    assert rows[0].tools is not None and rows[0].tools[0]["function"]["name"] == "weather"


def test_a_line_that_is_no_row_is_named_with_its_file_and_number(tmp_path: Path) -> None:
    shard = write_rows(tmp_path / "bad.jsonl", [weather_row(0)])
    shard.write_text(shard.read_text() + '{"row_id": "x"}\n')
    with pytest.raises(TrainerError, match=r"bad\.jsonl, line 2"):
        read_rows([str(shard)])


def _by_length(source: Row) -> Example:
    return Example(source.row_id, [7] * int(source.row_id), [7] * int(source.row_id))


def _rows(lengths: list[int]) -> list[Row]:
    return [Row(str(length), [], [], None) for length in lengths]


def test_rows_too_long_are_left_out_whole_and_counted() -> None:
    selection = select(_rows([3, 10, 11, 500, 4]), _by_length, max_length=10, max_rows=None, seed=0)
    assert [len(e.input_ids) for e in selection.examples] == [3, 10, 4]
    assert (selection.too_long, selection.not_drawn) == (2, 0)


def test_a_larger_draw_keeps_the_rows_of_a_smaller_one() -> None:
    rows = _rows(list(range(1, 60)))
    small = select(rows, _by_length, max_length=1000, max_rows=10, seed=0)
    large = select(rows, _by_length, max_length=1000, max_rows=30, seed=0)
    assert {e.row_id for e in small.examples} < {e.row_id for e in large.examples}
    assert (len(small.examples), small.not_drawn) == (10, 49)


def test_another_row_setting_or_label_is_another_fingerprint() -> None:
    one = [Example("a", [1, 2], [IGNORED, 2])]
    assert fingerprint(one, 1) == fingerprint([Example("b", [1, 2], [IGNORED, 2])], 1)
    assert len({fingerprint(one, 1), fingerprint(one, 2), fingerprint([Example("a", [1, 2], [1, 2])], 1)}) == 3
