"""`flywheel run`, with Dagster: progress lines while it works, a report when it ends."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence

import dagster as dg
from rich.console import Console
from rich.markup import escape

from flywheel_assets.again import mark, marked
from flywheel_assets.booking import RunReport
from flywheel_assets.core.planner import Plan
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.status import status_of
from flywheel_assets.run_worker import turn_in_processes
from flywheel_assets.runner import Choice, Say, current_plan, describe_item, slugs_of
from flywheel_assets.settings import Settings
from flywheel_assets.tables import grouped, print_plan_items, print_workload


def run_plan(
    instance: dg.DagsterInstance,
    settings: Settings,
    workloads: Sequence[str],
    candidates: Sequence[str],
    *,
    again: Sequence[str] = (),
    out: Console,
) -> RunReport:
    """Execute the plan with a line of progress for everything that happens; `again` names assets to make in any case."""
    flywheel = Flywheel.at_home(settings)
    choice = Choice(slugs_of(flywheel, workloads), tuple(candidates))
    if again:
        mark(flywheel, again, choice)
    return turn_in_processes(instance, flywheel, choice, _stamped(out), progress_on_stderr=out.stderr)


def print_plan(
    instance: dg.DagsterInstance,
    settings: Settings,
    workloads: Sequence[str],
    candidates: Sequence[str],
    *,
    again: Sequence[str] = (),
    as_json: bool,
    out: Console,
) -> None:
    """What `flywheel run` would do, and why; what `again` names shows as it would be made, and is left as it is."""
    flywheel = Flywheel.at_home(settings)
    choice = Choice(slugs_of(flywheel, workloads), tuple(candidates))
    if again:
        flywheel, _ = marked(flywheel, again, choice)
    current = current_plan(instance, flywheel)
    chosen = Plan(
        tuple(item for item in current.items if choice.allows(item)),
        tuple(hole for hole in current.holes if choice.allows_hole(hole)),
    )
    items = [describe_item(item) for item in chosen.items]
    holes = [
        {"asset": hole.asset, "partition": str(hole.partition), "reason": hole.reason, "inherited": hole.inherited}
        for hole in chosen.holes
    ]
    if as_json:
        sys.stdout.write(json.dumps({"items": items, "holes": holes}) + "\n")
    else:
        print_plan_items(items, holes, out)


def print_report(report: RunReport, settings: Settings, *, as_json: bool, out: Console) -> None:
    """What one turn did, how the workloads asked for stand now, and why what is not there is not, each cause once."""
    if as_json:
        content = {
            "flywheel_run": report.flywheel_run,
            "ok": report.ok,
            "materialized": report.materialized,
            "failures": report.failures,
            "holes": [f"{hole.asset} of {hole.partition}: {hole.reason}" for hole in report.holes],
            "seconds": report.seconds,
            "arrived": list(report.arrived),
            "wall_s": report.wall_s,
        }
        sys.stdout.write(json.dumps(content) + "\n")
        return
    for slug, workload in status_of(Flywheel.at_home(settings))["workloads"].items():
        if not report.workloads or slug in report.workloads:
            print_workload(slug, workload, out, problems=False)
    if not report.materialized and report.ok:
        out.print(f"Nothing was stale ({report.wall_s:.1f} s).")
        return
    out.print(f"{len(report.materialized)} made in {report.wall_s:.0f} s")
    for message, names in grouped((message, name) for name, message in report.failures.items()).items():
        out.print(f"failed: {names}: {escape(message)}", style="red")
    holes = [hole for hole in report.holes if not hole.inherited]
    others = ((hole.reason, f"{hole.asset} of {hole.partition}") for hole in holes)
    for reason, names in grouped((reason, name) for reason, name in others if name not in report.failures).items():
        out.print(f"not made: {names}: {escape(reason)}", style="yellow")
    if report.arrived:
        out.print(f"new records came meanwhile: {', '.join(report.arrived)}. `flywheel run` takes them in.", style="dim")


def _stamped(out: Console) -> Say:
    def say(message: str) -> None:
        out.print(f"[dim]{time.strftime('%H:%M:%S')}[/]  {escape(message)}")

    return say
