"""Play: the demo from the first word to the decision table. It uses the platform exactly as anybody would."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from flywheel_assets.cli_run import print_report, run_plan
from flywheel_assets.demo import DemoFiles, announce, prepare
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.ingest import ingest
from flywheel_assets.settings import Settings

if TYPE_CHECKING:
    from dagster import DagsterInstance


def play(instance: DagsterInstance, settings: Settings, *, full: bool, ui: str, out: Console) -> bool:
    """Fetch, ingest, turn the flywheel, show the decision; whether every cell came through. `ui` is the command that opens
    the UI on this instance."""
    started = time.monotonic()
    out.print(announce(settings.home, full), markup=False)
    out.rule("1 of 3: data and models")
    files = prepare(settings.home, full, _saying(out))
    out.rule("2 of 3: ingest")
    report = ingest([files.records], Flywheel.at_home(settings).traces, max_bytes=settings.local.max_record_bytes)
    out.print(f"{report.new} new records, {report.duplicate} known already, {report.rejected} rejected")
    out.rule("3 of 3: datasets, training, evaluation, decision")
    turned = run_plan(instance, settings, files.workloads, (), out=out)
    out.rule("what came out")
    print_report(turned, settings, as_json=False, out=out)
    _epilogue(settings, files, ui, time.monotonic() - started, out)
    return turned.ok


def _epilogue(settings: Settings, files: DemoFiles, ui: str, seconds: float, out: Console) -> None:
    """Where things lie, and what to try next."""
    home = _short(settings.home)
    out.print(
        f"\nDone in {seconds / 60:.1f} minutes, on public benchmark requests with accepted answers, not on production "
        f"traffic.\n"
        f"Artifacts: {home}/artifacts/objects (one folder an asset; the decision's report.html is the one to read)\n"
        f"The same in Dagster:        {ui:<16} then http://localhost:3000\n"
        f"The customized model:       .venv/bin/flywheel serve {files.workloads[0]}\n"
        f"                            prints a curl that gets a tool call from it\n"
        f"Your own traffic:           .venv/bin/flywheel ingest my.jsonl && .venv/bin/flywheel run",
        markup=False,
    )


def _short(path: Path) -> str:
    """Relative to where the user stands, where that is shorter."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _saying(out: Console) -> Callable[[str], None]:
    def say(message: str) -> None:
        out.print(f"  {escape(message)}")

    return say
