"""The console in a real browser: who sees a page for the first time understands it, and buttons do what they say.

One `dagster dev` and one Chromium for all tests, which build on each other in their order. Pictures of every page go to the
folder that FLYWHEEL_PICTURES names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests import browser
from tests.e2e.console import ENDED, Console
from tests.e2e.console_scene import DESK, DRILLS, FEW, RIGHT, TINY, WRONG, scene
from tests.e2e.dagster_dev import dagster_dev, materializations

pytestmark = [
    pytest.mark.slow,
    pytest.mark.model,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(browser.CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)"),
    pytest.mark.xdist_group("console"),
]

CELL = f"{RIGHT}|{DESK}"
# asset: (partition, what a person must be able to read without a click)
PAGES = {
    "records": (DESK, ("400 records, 400 of them new; 0 were refused", "api_key 10")),
    "workload_profile": (DESK, ("a tool_calling workload: 400 records, 3 tools", "teacher cost per 1,000 requests (USD)")),
    "datasets/base": (DESK, ("questions with the answer that counts as right", "left out", "first rows")),
    "datasets/train": (DESK, ("training rows, and", "first rows")),
    "prefix": (CELL, ("2 training rows are shown before each request of the prefixed variant",)),
    "finetune_decision": (CELL, ("fine-tuned", "is an endpoint of somebody else's")),
    "adapter": (CELL, ("skipped", "not fine-tuned:")),
    "evals/base": (CELL, ("without an answer", "function_name_and_args", "cost per 1,000 requests (USD)")),
    "evals/prefixed": (CELL, ("without an answer", "function_name_and_args")),
    "evals/customized": (CELL, ("skipped", "not fine-tuned:")),
    "comparison": (DESK, (f"best of 4 examined variants: {RIGHT}", "holes", "leaderboard")),
    "decision": (DESK, ("may replace the teacher", "a person approves: the job promote", "leaderboard")),
    "published_adapter": (DESK, ("skipped", "nobody approved a small model")),
}
_WIDE = {"width": 1680, "height": 1000}
_FITS = "Math.max(...[...document.querySelectorAll('table')].map(one => one.getBoundingClientRect().right)) <= innerWidth"


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    folder = tmp_path_factory.mktemp("console")
    pictures = Path(os.environ.get("FLYWHEEL_PICTURES") or folder / "pictures")
    pictures.mkdir(parents=True, exist_ok=True)
    with scene(folder) as clone:
        clone.flywheel("run", DESK, FEW, ok=False)
        with dagster_dev(clone) as graphql, browser.browsing(**_WIDE) as tab:
            yield Console(clone, graphql, tab, pictures)


def test_the_graph_shows_every_asset_in_its_group(console: Console) -> None:
    console.open("/assets/decision?view=lineage&lineageScope=upstream&lineageDepth=20")
    for text in ("capture", "context", "training", "evaluation", "traces", "finetune_decision", "workload_profile"):
        console.tab.sees(text)
    console.picture("graph")


@pytest.mark.parametrize("asset", PAGES)
def test_the_page_of_an_asset_says_what_came_out(asset: str, console: Console) -> None:
    partition, texts = PAGES[asset]
    console.asset(asset, partition)
    console.tab.sees("in short" if "skipped" not in texts and asset != "finetune_decision" else "state", *texts)
    assert "sk-proj" not in console.tab.text()
    console.picture(asset.replace("/", "_"))
    # The page of a cell is the narrowest: one value that is too wide, and the ends of all others are cut off.
    if partition == CELL:
        assert console.tab.evaluate(_FITS)


def test_the_overview_of_a_table_teaches_and_names_its_columns(console: Console) -> None:
    console.open("/assets/datasets/base?view=overview")
    console.tab.sees("Every candidate is asked these rows and no others", "ml-platform", "flywheel/scope: workload")
    console.tab.sees("accepted_answers", "On whose word the answer is right")
    console.picture("overview")


def test_the_pictures_of_a_decision_are_one_click_away(console: Console) -> None:
    console.asset("decision", DESK)
    console.tab.sees("leaderboard")
    console.tab.at_rest()
    console.tab.click("[Show Markdown]")
    console.tab.until("[...document.images].some(one => one.src.startsWith('data:image/png') && one.naturalWidth > 300)")
    console.picture("leaderboard")


def test_no_row_that_is_shown_holds_the_key_somebody_pasted(console: Console) -> None:
    console.asset("datasets/train", DESK)
    console.tab.sees("first rows")
    console.tab.at_rest()
    console.tab.click("[Show Markdown]")
    console.tab.sees("completion to learn")
    assert "sk-proj" not in console.tab.text()
    console.picture("rows")


def test_a_failing_check_says_what_is_wrong_and_what_to_do(console: Console) -> None:
    console.open("/assets/datasets/base?view=checks&checkDetail=enough_records")
    console.tab.sees("If it fails: ingest more, or lower that number in flywheel.yaml")
    console.tab.at_rest()
    console.tab.click("Execution history")
    console.tab.sees("workload 'too-few': 20 records, 50 needed (split.min_total_records). Ingest 30 more")
    console.picture("failing_check")


def test_the_launchpad_is_filled_in_and_its_button_brings_a_cell_up_to_date(console: Console) -> None:
    console.open("/locations/flywheel_assets/jobs/evaluate_candidate/playground")
    console.tab.sees("No errors", f"candidate: {RIGHT}", f"workload: {DESK}")
    console.picture("launchpad")
    console.tab.click("Launch Run")
    run = console.until(lambda: _job(console, "evaluate_candidate"))
    console.until(lambda: console.status(run) == "SUCCESS")
    console.open(f"/runs/{run}")
    console.tab.sees(f"{DESK} x {RIGHT}: nothing was stale", "nothing: all of it was up to date")
    assert console.runs(flywheel_workload=DESK, flywheel_candidate=RIGHT)[0]["runId"] == run
    console.picture("job_with_nothing_to_do")


def test_terminating_a_job_ends_the_training_it_started(console: Console) -> None:
    job = console.launch("evaluate_candidate", {"evaluate": {"workload": DRILLS, "candidate": TINY}})
    training = console.until(lambda: _batch(console, f"{DRILLS}/{TINY}@customize"))
    console.open(f"/runs/{training}")
    console.tab.sees("s of training left", patience_s=400)
    assert console.status(job) == console.status(training) == "STARTED"
    assert len(console.runs(flywheel_run=console.tags(job)["flywheel/run"])) >= 3
    console.terminate(job)
    console.until(lambda: console.status(job) in ENDED and console.status(training) in ENDED)
    assert (console.status(job), console.status(training)) == ("CANCELED", "CANCELED")
    console.until(lambda: not [p for p in console.clone.processes() if "flywheel_assets.trainer" in p.cmdline()], 30)


def test_a_cell_is_materialized_by_clicks_and_its_training_is_watched(console: Console) -> None:
    cell = f"{TINY}|{DRILLS}"
    assert materializations(console.graphql, ["adapter"], cell) == []
    console.open("/assets/adapter?view=overview")
    console.tab.sees("Materialize…")
    console.tab.at_rest()
    console.tab.click("Materialize…")
    for wanted in (TINY, DRILLS):
        console.tab.sees("Launch runs to materialize adapter")
        console.tab.at_rest()
        console.tab.click("Select a partition or create one")
        console.tab.click(wanted)
        console.tab.click("Launch runs to materialize adapter")
    console.tab.sees("1 partition")
    console.picture("materialize")
    before = {run["runId"] for run in console.runs()}
    console.tab.click("Launch 1 run")
    run = console.until(lambda: next((one["runId"] for one in console.runs() if one["runId"] not in before), None))
    console.open(f"/runs/{run}")
    # Whoever looks at the page sees it move: two different steps, without loading it again.
    console.tab.sees("s of training left", patience_s=400)
    assert console.status(run) == "STARTED"
    steps = "(document.body.innerText.match(/step \\d+\\/\\d+, loss/g) || []).length"
    seen = console.tab.evaluate(steps)
    console.tab.until(f"{steps} > {seen}", patience_s=120)
    console.picture("training")
    console.until(lambda: console.status(run) in ENDED, 600)
    assert [event["runId"] for event in materializations(console.graphql, ["adapter"], cell)] == [run]
    tags = console.tags(run)
    assert (tags["flywheel/workload"], tags["flywheel/candidate"], tags["flywheel/run"]) == (DRILLS, TINY, run)
    console.asset("adapter", cell)
    console.tab.sees("in short", "validation rows", "final loss")
    console.picture("trained")


def test_an_approval_is_given_in_the_launchpad_and_seen_in_the_catalog(console: Console) -> None:
    asked = f"ops:\n  model_catalog:\n    config:\n      action: approve\n      workload: {DESK}\n      who: Ada\n"
    asked += "      why: loses less than ten points\n"
    console.open(f"/locations/flywheel_assets/jobs/promote/playground/setup?config={quote(asked)}")
    console.tab.sees("No errors", "who: Ada")
    console.picture("approval")
    console.tab.click("Launch Run")
    run = console.until(lambda: _job(console, "promote"))
    console.until(lambda: console.status(run) in ENDED)
    assert console.status(run) == "SUCCESS" and console.tags(run)["flywheel/workload"] == DESK
    console.open("/assets/model_catalog?view=overview")
    console.tab.sees(f"serves now: {DESK}: {RIGHT}")
    console.picture("approved")


def test_runs_are_found_by_workload_and_candidate(console: Console) -> None:
    for tag in (f"flywheel/workload={DESK}", f"flywheel/candidate={WRONG}"):
        console.open(f"/runs?q[0]={quote(f'tag:{tag}')}")
        console.tab.sees(tag)
        console.tab.at_rest()
        assert DRILLS not in console.tab.text()
    console.picture("runs_of_a_candidate")


def _job(console: Console, name: str) -> str | None:
    return next((run["runId"] for run in console.runs() if run["pipelineName"] == name), None)


def _batch(console: Console, name: str) -> str | None:
    return next((run["runId"] for run in console.runs(flywheel_batch=name) if run["status"] == "STARTED"), None)
