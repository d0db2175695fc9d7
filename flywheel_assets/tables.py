"""Tables: how the command line shows what `--json` prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flywheel_assets.core.rows import Json

_COLUMNS = {
    "tool_calling": ("function_name", "function_name_and_args", "bfcl_ast", "no_call"),
    "structured": ("field_f1", "exact_match", "schema_valid", "json_valid"),
    "generic": ("f1", "exact_match"),
}
_STYLES = {"ok": "green", "failed": "red", "running": "cyan", "stale": "yellow", "skipped": "dim"}
_VERDICTS = {"promote": "green", "keep": "yellow", "inconclusive": "cyan"}


def print_status(content: Json, out: Console) -> None:
    """`flywheel status`."""
    if not content["workloads"]:
        out.print("No records yet. `flywheel ingest FILE` adds some; `make demo` shows the whole loop.")
    for slug, workload in content["workloads"].items():
        print_workload(slug, workload, out)


def print_workload(slug: str, workload: Json, out: Console) -> None:
    """The decision table of one workload."""
    metrics = _COLUMNS.get(workload["type"] or "", ())
    version = workload["dataset_version"] or "-"
    table = Table(title=f"{slug}  ({workload['type'] or 'not profiled'}, {workload['records']} records, dataset {version})")
    for column in ("candidate", "variant", "state"):
        table.add_column(column, no_wrap=True)
    for metric in metrics:
        table.add_column(f"{metric}\n(95% interval)", justify="right")
    table.add_column("p50 ms", justify="right")
    for candidate, variants in workload["cells"].items():
        for name, variant in variants.items():
            state = f"[{_STYLES.get(variant['state'], 'white')}]{variant['state']}[/]"
            p50 = variant["latency_ms"]["p50"]
            scores = [_score(variant["scores"].get(metric)) for metric in metrics]
            table.add_row(candidate, name, state, *scores, "-" if p50 is None else f"{p50:.0f}")
    out.print(table)
    for candidate, variants in workload["cells"].items():
        for name, variant in variants.items():
            if variant["reason"]:
                out.print(f"  {candidate} {name}: {escape(variant['reason'])}", style="dim")
    for problem in workload["problems"]:
        out.print(f"  {problem['asset']}: {escape(problem['reason'])}", style="red")
    _print_decision(workload["decision"], out)


def print_plan_items(items: Sequence[Json], holes: Sequence[Json], out: Console) -> None:
    """`flywheel run --dry-run`."""
    if not items:
        out.print("Nothing is stale.")
    else:
        table = Table("asset", "workload", "candidate", "why", title=f"{len(items)} to make")
        for item in items:
            table.add_row(item["asset"], item["workload"] or "-", item["candidate"] or "-", escape(item["reason"]))
        out.print(table)
    for hole in holes:
        out.print(f"cannot be made: {hole['asset']} of {hole['partition']}: {escape(hole['reason'])}", style="yellow")


def print_sample_size(content: Json, out: Console) -> None:
    """`flywheel plan`."""
    out.print(f"{content['workload']}: {content['eval_rows']} eval rows now, {content['records']} records")
    out.print(f"alpha {content['alpha']:g} shared by {content['arms']} variant(s), power {content['power']:g}")
    table = Table("metric", "margin", "difference", "discordance", "", "rows needed", "there are", "missing")
    for row in content["plans"]:
        table.add_row(
            row["metric"],
            f"{row['margin']:.3f}",
            f"{row['difference']:+.3f}",
            f"{row['discordance']:.3f}",
            "seen" if row["observed"] else "assumed",
            "no number will do" if row["needed"] is None else f"{row['needed']:,}",
            f"{row['available']:,}",
            "" if row["missing"] is None else f"{row['missing']:,}",
        )
    out.print(table)
    for look in content["looks"]:
        out.print(f"look at {look['rows']:,} eval rows: {look['spent']:.4f} of alpha spent by then")
    out.print(content["note"], style="dim")


def print_ingest(content: Json, out: Console) -> None:
    """`flywheel ingest`."""
    out.print(f"{content['new']:,} new, {content['duplicate']:,} duplicate, {content['rejected']:,} rejected")
    for slug, count in sorted(content["workloads"].items()):
        out.print(f"  {slug}: {count:,} new")
    for reason, count in sorted(content["reasons"].items()):
        out.print(
            f"  rejected: {reason}: {count:,} (kept in the quarantine; docs/log-schema.md explains each reason)",
            style="yellow",
        )
    if content["new"]:
        out.print("Next: `flywheel run`")


def print_findings(findings: Sequence[Any], out: Console) -> None:
    """`flywheel doctor`."""
    table = Table("", "what", "found", "what now")
    for finding in findings:
        mark = "[green]ok[/]" if finding.ok else "[red]no[/]"
        table.add_row(mark, finding.what, escape(finding.found), escape(finding.advice))
    out.print(table)


def print_conversion(done: Any, target: Path, out: Console) -> None:
    """`flywheel import-config`."""
    out.print(
        f"{target} written: {len(done.content['nims'])} candidates. `flywheel doctor` looks at the cluster.", markup=False
    )
    if done.notes:
        table = Table("not carried over as it was", "why, or what to look at")
        for key, why in done.notes:
            table.add_row(escape(key), escape(why))
        out.print(table)


def _print_decision(decision: Json | None, out: Console) -> None:
    if decision is None:
        out.print("  no decision yet")
        return
    style = _VERDICTS.get(decision["verdict"], "white")
    winner = f" {decision['candidate']} ({decision['variant']})" if decision["candidate"] else ""
    approved = "" if decision["verdict"] != "promote" else (", approved" if decision["approved"] else ", not approved")
    out.print(f"  decision: [bold {style}]{decision['verdict']}[/]{winner}{approved}")
    if served := decision["serving"]:
        model = f"{served['candidate']} ({served['variant']})"
        out.print(f"  serves now: {model}, approved by {escape(served['who'])} on {served['time']}")
    if decision["needed_rows"]:
        out.print(f"  {decision['needed_rows']:,} more eval rows are needed for a verdict")
    for reason in decision["reasons"]:
        out.print(f"  - {escape(reason)}")
    if decision["stale"]:
        out.print(f"  (stale: {escape(decision['stale'])})", style="yellow")


def _score(score: Json | None) -> str:
    if not score or score["value"] is None:
        return "-"
    return f"{score['value']:.3f} [{score['low']:.2f}, {score['high']:.2f}]"
