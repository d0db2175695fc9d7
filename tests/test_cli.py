"""The command line as a user meets it: one clear message, the next step, the right exit code."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import pty
from pathlib import Path

import pytest

from flywheel_assets.cli import plan_command
from flywheel_assets.cli_errors import UserError
from flywheel_assets.core.formats import BUILT_IN
from tests.core.formats.rows import XLAM
from tests.e2e.clone import Clone
from tests.e2e.own_traffic import write_ticket_records
from tests.fakes import OpenAIDouble


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone.make(tmp_path / "clone")


def test_help_names_every_command_and_where_to_start(clone: Clone) -> None:
    out = clone.flywheel("--help").stdout
    for command in (
        "ingest",
        "run",
        "status",
        "plan",
        "approve",
        "reject",
        "rollback",
        "serve",
        "doctor",
        "demo",
        "import-config",
    ):
        assert command in out
    assert "flywheel ingest FILE" in " ".join(out.split())


def test_ingest_counts_new_duplicate_and_rejected_with_reasons(clone: Clone, tmp_path: Path) -> None:
    path = write_ticket_records(tmp_path / "my.jsonl", 5, workload="tickets")
    with path.open("a") as file:
        file.write('{"not": "a record"}\nnot json\n')
    result = clone.flywheel("ingest", str(path), "--json", ok=False)
    assert result.returncode == 1, "a malformed line is no success, though the good ones beside it are kept"
    first = json.loads(result.stdout)
    assert (first["new"], first["duplicate"], first["rejected"]) == (5, 0, 2)
    assert first["workloads"] == {"tickets": 5}
    assert set(first["reasons"]) == {"missing_field", "not_json"}
    again = clone.flywheel("ingest", str(path), ok=False)
    assert again.returncode == 1
    said = " ".join(again.stdout.split())
    assert "0 new, 5 duplicate, 2 rejected" in said
    assert f"rejected: missing_field: 1 (first: {path} line 6: " in said
    assert f"rejected: not_json: 1 (first: {path} line 7: " in said


def test_the_example_of_a_reject_shows_no_secret(clone: Clone, tmp_path: Path) -> None:
    path = write_ticket_records(tmp_path / "my.jsonl", 1, workload="tickets")
    record = json.loads(path.read_text())
    record["request"]["messages"][0]["role"] = "ada.lovelace@example.org"
    path.write_text(json.dumps(record) + "\n")
    said = " ".join(clone.flywheel("ingest", str(path), ok=False).stdout.split())
    assert "rejected: unknown_role: 1" in said and "line 1: " in said
    assert "ada.lovelace" not in said


def test_of_a_log_that_is_cut_off_the_report_comes_before_the_error(clone: Clone, tmp_path: Path) -> None:
    path = write_ticket_records(tmp_path / "my.jsonl", 400, workload="tickets")
    packed = gzip.compress(path.read_bytes())
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(packed[: len(packed) // 2])
    result = clone.flywheel("ingest", str(cut), "--json", ok=False)
    assert result.returncode == 2
    report = json.loads(result.stdout)
    assert 0 < report["new"] < 400
    assert clone.status()["tickets"]["records"] == report["new"]
    assert "cut.jsonl.gz is cut off" in result.stderr and "Traceback" not in result.stderr
    again = clone.flywheel("ingest", str(cut), ok=False)
    assert f"0 new, {report['new']} duplicate, 0 rejected" in again.stdout
    assert "cut.jsonl.gz is cut off" in again.stderr


def test_on_a_terminal_the_progress_line_is_gone_before_the_summary(clone: Clone, tmp_path: Path) -> None:
    path = write_ticket_records(tmp_path / "my.jsonl", 5, workload="tickets")
    terminal, end = pty.openpty()
    with clone.start("ingest", str(path), stdout=end, stderr=end) as process:
        os.close(end)
        said = b""
        with contextlib.suppress(OSError):  # how Linux says that the other end is closed
            while piece := os.read(terminal, 4096):
                said += piece
    os.close(terminal)
    assert process.returncode == 0
    before, after = said.split(b"5 new", 1)
    assert b"records read" in before and before.endswith(b"\r\x1b[2K"), before
    assert b"records read" not in after


def test_ingest_teaches_its_formats_and_tells_what_it_found(clone: Clone, tmp_path: Path) -> None:
    out = clone.flywheel("ingest", "--help").stdout
    for form in BUILT_IN:
        assert form.name in out
        assert form.title in " ".join(out.split())
    assert out.count("flywheel ingest ") >= 2

    path = tmp_path / "functions.json"
    path.write_text(json.dumps([XLAM, {**XLAM, "query": "And in store 4?"}]), encoding="utf-8")
    refused = clone.flywheel("ingest", str(path), ok=False)
    assert refused.returncode == 2
    assert "--workload NAME" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert clone.status() == {}

    said = clone.flywheel("ingest", str(path), "--workload", "stock").stdout
    assert f"{path}: read as xlam" in said
    assert "2 new, 0 duplicate, 0 rejected" in said
    again = json.loads(clone.flywheel("ingest", str(path), "--workload", "stock", "--format", "xlam", "--json").stdout)
    assert (again["new"], again["duplicate"], again["formats"]) == (0, 2, {str(path): "xlam"})


def test_an_unknown_format_lists_the_known_ones(clone: Clone, tmp_path: Path) -> None:
    path = write_ticket_records(tmp_path / "my.jsonl", 5, workload="tickets")
    result = clone.flywheel("ingest", str(path), "--format", "csv", ok=False)
    assert result.returncode == 2
    assert "there is no format 'csv'. Known: auto, log, openai" in result.stderr


def test_a_missing_file_is_one_message_and_nothing_is_stored(clone: Clone, tmp_path: Path) -> None:
    good = write_ticket_records(tmp_path / "my.jsonl", 5, workload="tickets")
    result = clone.flywheel("ingest", str(good), str(tmp_path / "nothing.jsonl"), ok=False)
    assert result.returncode == 2
    assert "nothing.jsonl" in result.stderr
    assert "Traceback" not in result.stderr
    assert clone.status() == {}


def test_broken_settings_name_the_key_and_what_is_accepted(clone: Clone) -> None:
    clone.edit(lambda content: content["split"].update(eval_sise=10))
    result = clone.flywheel("status", ok=False)
    assert result.returncode == 2
    assert "split.eval_sise: unknown key" in result.stderr
    assert "eval_size" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_unknown_candidate_lists_the_known_ones(clone: Clone) -> None:
    result = clone.flywheel("run", "--candidate", "gpt-9", ok=False)
    assert result.returncode == 2
    assert "unknown candidate 'gpt-9'" in result.stderr
    assert "smollm2-135m" in result.stderr


def test_an_unknown_workload_lists_the_known_ones(clone: Clone, tmp_path: Path) -> None:
    clone.flywheel("ingest", str(write_ticket_records(tmp_path / "my.jsonl", 5, workload="tickets")))
    for command in ("run", "plan", "serve"):
        result = clone.flywheel(command, "tikets", ok=False)
        assert result.returncode == 2
        assert "unknown workload 'tikets'" in result.stderr
        assert "tickets" in result.stderr


def test_a_workload_without_candidates_says_so_instead_of_an_empty_table(clone: Clone, tmp_path: Path) -> None:
    clone.edit(lambda content: [candidate.update(workloads=[]) for candidate in content["candidates"]])
    clone.flywheel("ingest", str(write_ticket_records(tmp_path / "r.jsonl", 3, workload="tickets")))
    shown = clone.flywheel("status").stdout
    assert "no candidate is for it: look at `workloads` of the candidates in flywheel.yaml" in shown
    assert "variant" not in shown


def test_nothing_is_approved_before_it_is_decided_nor_without_a_reason(clone: Clone, tmp_path: Path) -> None:
    clone.flywheel("ingest", str(write_ticket_records(tmp_path / "my.jsonl", 5, workload="tickets")))
    result = clone.flywheel("approve", "tickets", "--why", "looks good", ok=False)
    assert result.returncode == 2
    assert "nothing is decided yet. Run `flywheel run tickets` first." in " ".join(result.stderr.split())
    assert "--why" in clone.flywheel("approve", "tickets", ok=False).stderr


def test_a_workload_of_refused_records_says_why_it_has_none(clone: Clone, tmp_path: Path) -> None:
    path = tmp_path / "embeddings.jsonl"
    record = {
        "timestamp": 1_790_000_000,
        "workload_id": "embed",
        "client_id": "c",
        "request": {"input": "x"},
        "response": {},
    }
    path.write_text(json.dumps(record) + "\n")
    assert clone.flywheel("ingest", str(path), ok=False).returncode == 1
    result = clone.flywheel("run", "embed", ok=False)
    assert result.returncode == 2
    assert "not_chat" in result.stderr


def test_an_unreachable_endpoint_fails_its_cells_with_the_url_and_exit_code_1(clone: Clone, tmp_path: Path) -> None:
    gone = {"id": "gone", "model": "http://127.0.0.1:9/v1", "engine": "openai", "trainable": False}
    clone.edit(lambda content: content.update(candidates=[gone]))
    clone.flywheel("ingest", str(write_ticket_records(tmp_path / "my.jsonl", 80, workload="tickets")))
    result = clone.flywheel("run", ok=False)
    assert result.returncode == 1
    assert "http://127.0.0.1:9/v1" in result.stdout
    assert clone.status()["tickets"]["cells"]["gone"]["base"]["state"] == "failed"
    doctor = clone.flywheel("doctor", ok=False)
    assert doctor.returncode == 1
    assert "127.0.0.1:9" in doctor.stdout


def test_doctor_never_prints_a_secret(clone: Clone) -> None:
    with OpenAIDouble(key="s3cret-key") as double:
        remote = {"id": "remote", "model": double.url, "engine": "openai", "api_key_env": "REMOTE_KEY", "trainable": False}
        clone.edit(lambda content: content.update(candidates=[remote]))
        clone.environment["REMOTE_KEY"] = "s3cret-key"
        result = clone.flywheel("doctor", ok=False)
    assert "REMOTE_KEY" in result.stdout
    assert "s3cret-key" not in result.stdout + result.stderr


def test_a_remote_candidate_is_asked_rows_times_variants_and_never_again(clone: Clone, tmp_path: Path) -> None:
    """Server-side call count = rows x variants with an empty cache, 0 with a full one."""
    with OpenAIDouble() as double:
        remote = {"id": "remote", "model": double.url, "engine": "openai", "trainable": False}
        clone.edit(lambda content: content.update(candidates=[remote], decision={"alpha": 0.05}))
        clone.flywheel("ingest", str(write_ticket_records(tmp_path / "my.jsonl", 80, workload="tickets")))
        clone.flywheel("run")
        rows = clone.status()["tickets"]["cells"]["remote"]["base"]["n"]
        assert double.count == rows * 2  # customized is skipped: the endpoint cannot load an adapter
        # The reports are gone, the cache is not: everything is made again without one call.
        for folder in ("refs", "objects"):
            for variant in ("base", "prefixed"):
                for path in sorted((clone.home / "artifacts" / folder / "evals" / variant).rglob("*"), reverse=True):
                    path.rmdir() if path.is_dir() else path.unlink()
        report = json.loads(clone.flywheel("run", "--json").stdout)
        assert "evals/base of tickets x remote" in report["materialized"]
        assert double.count == rows * 2


def test_a_dry_run_says_what_and_why_and_makes_nothing(clone: Clone, tmp_path: Path) -> None:
    clone.flywheel("ingest", str(write_ticket_records(tmp_path / "my.jsonl", 80, workload="tickets")))
    planned = json.loads(clone.flywheel("run", "--dry-run", "--json").stdout)["items"]
    assert planned[0] == {"asset": "records", "workload": "tickets", "candidate": None, "reason": "never made"}
    assert not (clone.home / "artifacts" / "refs").exists()


@pytest.mark.parametrize("margin", [3.0, 1.0, 0.0, -1.0, float("nan"), float("inf")])
def test_a_margin_to_plan_for_that_is_no_share_is_refused(margin: float) -> None:
    with pytest.raises(UserError, match=r"--margin .* between 0 and 1, such as 0\.05"):
        plan_command("tickets", margin=margin)


def _refused(clone: Clone, *arguments: str) -> str:
    """What `flywheel` says when it refuses: exit code 2, one message, no traceback."""
    result = clone.flywheel(*arguments, ok=False)
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("flywheel: "), result.stderr
    assert "Traceback" not in result.stderr
    return " ".join(result.stderr.split())


def test_a_demo_without_a_package_index_says_what_to_check(clone: Clone) -> None:
    clone.environment |= {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "PIP_NO_CACHE_DIR": "1"}
    said = _refused(clone, "demo")
    assert "could not be fetched. Check the connection and which package index pip is set to" in said


def test_a_dagster_home_that_is_relative_or_missing_is_one_message(clone: Clone, tmp_path: Path) -> None:
    clone.environment["DAGSTER_HOME"] = "some/where"
    assert "DAGSTER_HOME is 'some/where'; it must be an absolute path" in _refused(clone, "run")
    clone.environment["DAGSTER_HOME"] = str(tmp_path / "gone")
    assert f"DAGSTER_HOME is '{tmp_path / 'gone'}', which is no folder" in _refused(clone, "run")


def test_a_flywheel_home_that_is_a_file_is_one_message(clone: Clone, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    clone.environment["FLYWHEEL_HOME"] = str(tmp_path / "file")
    assert f"FLYWHEEL_HOME is {tmp_path / 'file'}, which is a file" in _refused(clone, "status")
    clone.environment["FLYWHEEL_HOME"] = str(tmp_path / "file" / "inside")
    assert "Not a directory" in _refused(clone, "ingest", str(write_ticket_records(tmp_path / "my.jsonl", 5, workload="t")))


def test_a_trace_store_that_is_no_database_is_one_message(clone: Clone) -> None:
    clone.home.mkdir()
    (clone.home / "traces.sqlite").write_text("no database at all\n" * 100)
    assert "file is not a database" in _refused(clone, "status")


def test_a_key_with_a_line_feed_is_refused_and_never_shown(clone: Clone) -> None:
    clone.edit(lambda content: content.update(trace_store="elasticsearch"))
    clone.environment |= {"ELASTICSEARCH_URL": "http://127.0.0.1:9", "ELASTICSEARCH_API_KEY": "s3cret-key\nand more"}
    said = _refused(clone, "status")
    assert "ELASTICSEARCH_API_KEY" in said and "line feed" in said
    assert "s3cret" not in said and "and more" not in said


def test_a_candidates_key_with_a_line_feed_is_refused_and_never_shown(clone: Clone) -> None:
    remote = {"id": "remote", "model": "http://127.0.0.1:9/v1", "engine": "openai", "api_key_env": "REMOTE_KEY"}
    clone.edit(lambda content: content.update(candidates=[remote]))
    clone.environment["REMOTE_KEY"] = "s3cret-key\n"
    result = clone.flywheel("doctor", ok=False)
    assert result.returncode == 1
    assert "line feed" in " ".join(result.stdout.split())
    assert "s3cret-key" not in result.stdout + result.stderr
