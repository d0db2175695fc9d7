"""What `flywheel run` says when it is done: each cause once, about the workloads that were asked for."""

from __future__ import annotations

import io

from rich.console import Console

from flywheel_assets.cli_run import print_report
from tests.assets.conftest import Bench

REFUSAL = "workload 'few': 20 records, 50 needed (split.min_total_records). Ingest 30 more, or lower it in flywheel.yaml."


def _said(bench: Bench, *workloads: str) -> str:
    out = Console(file=io.StringIO(), width=200, soft_wrap=True)
    print_report(bench.turn(*workloads), bench.flywheel.settings, as_json=False, out=out)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def test_too_few_records_are_one_message_that_says_how_many_are_missing(bench: Bench) -> None:
    bench.ingest(20, "few")
    said = _said(bench, "few")
    assert said.count(REFUSAL) == 1, said
    assert "upstream" not in said


def test_workloads_that_were_not_asked_for_are_not_shown(bench: Bench) -> None:
    bench.ingest(20, "few")
    bench.ingest(20, "other", seed=3)
    said = _said(bench, "few")
    assert "few  (" in said
    assert "other" not in said
    both = _said(bench)
    assert "few  (" in both and "other  (" in both
