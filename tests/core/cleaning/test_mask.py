"""Masking: what people are shown of rows holds no secret, even where the rows themselves do."""

from __future__ import annotations

import json

from flywheel_assets.core.cleaning import CleaningPolicy
from flywheel_assets.core.cleaning.mask import masked, masked_text
from flywheel_assets.core.cleaning.scrub import scrub_record
from tests.core.cleaning.values import generated
from tests.core.datasets.workbench import log_line

KEY = "sk-proj-" + "a1B2c3D4e5F6g7H8i9J0k1L2"


def test_no_kind_of_value_is_left_wherever_it_stands() -> None:
    for kind, (value, sentence) in generated(20261126).items():
        row = {"request": {"messages": [{"content": sentence}]}, "arguments": json.dumps({"text": sentence})}
        assert value not in json.dumps(masked(row), ensure_ascii=False), kind


def test_a_key_is_masked_in_arguments_names_of_fields_and_plain_words() -> None:
    arguments = json.dumps({"note": f"use {KEY}", "nested": json.dumps({"password": "correct-horse-7"})})
    shown = json.dumps(masked({"calls": [{"arguments": arguments}], KEY: 1, "said": f"again {KEY}"}))
    assert KEY not in shown and "correct-horse-7" not in shown
    assert shown.count("<API_KEY_1>") == 3


def test_a_text_that_a_lenient_policy_called_clean_is_masked_all_the_same() -> None:
    line = log_line(1, note=f"my key is {KEY}")
    scrub_record(line, b"{}", CleaningPolicy(allow=(KEY,)))
    assert KEY in json.dumps(line)
    assert KEY not in json.dumps(masked(line))


def test_ids_times_and_scores_are_still_to_be_read() -> None:
    row = {
        "row_id": "3f2504e04f8911d39a0c0305e82c3301",
        "trace_id": "order-1001",
        "timestamp": 1_790_000_000,
        "score": 0.9173,
        "content": "Where is order 48219? It was to come on 2026-11-26 at 10:30.",
    }
    assert masked(row) == row


def test_a_report_keeps_its_tables() -> None:
    report = "| candidate | n | low |\n| --- | --- | --- |\n| smollm2-135m (customized) | 100 | 0.831 |\n"
    assert masked_text(report) == report
    assert masked_text(f"asked: {KEY}\n") == "asked: <API_KEY_1>\n"
