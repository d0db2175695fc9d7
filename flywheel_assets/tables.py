"""Tables: how the command line shows what `--json` prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flywheel_assets.core.judge import JUDGE_COLUMNS
from flywheel_assets.core.rows import Json

_COLUMNS = {
    "tool_calling": ("function_name", "function_name_and_args", "bfcl_ast", "no_call", "answered"),
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


def print_workload(slug: str, workload: Json, out: Console, *, problems: bool = True) -> None:
    """The decision table of one workload. `problems` False leaves out why what is missing is missing."""
    metrics = (*_COLUMNS.get(workload["type"] or "", ()), *_judge_columns(workload))
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
    if workload["cells"]:
        out.print(table)
    else:
        out.print(f"{table.title}\n  no candidate is for it: look at `workloads` of the candidates in flywheel.yaml")
    causes = grouped((problem["reason"], _place(problem)) for problem in workload["problems"])
    for candidate, variants in workload["cells"].items():
        for name, variant in variants.items():
            reason = variant["reason"]
            if reason and reason not in causes and not variant["inherited"]:
                out.print(f"  {candidate} {name}: {escape(reason)}", style="dim")
    if problems:
        for reason, names in causes.items():
            out.print(f"  {names}: {escape(reason)}", style="red")
    _print_decision(workload["decision"], out)


def grouped(told: Iterable[tuple[str, str]]) -> dict[str, str]:
    """By text, the names it is told of: what has one cause is said once."""
    names: dict[str, list[str]] = {}
    for text, name in told:
        names.setdefault(text, []).append(name)
    return {text: ", ".join(dict.fromkeys(who)) for text, who in names.items()}


def print_plan_items(items: Sequence[Json], holes: Sequence[Json], out: Console) -> None:
    """`flywheel run --dry-run`."""
    if not items:
        out.print("Nothing is stale.")
    else:
        table = Table("asset", "workload", "candidate", "why", title=f"{len(items)} to make")
        for item in items:
            table.add_row(item["asset"], item["workload"] or "-", item["candidate"] or "-", escape(item["reason"]))
        out.print(table)
    causes = [hole for hole in holes if not hole["inherited"]]
    for reason, names in grouped((hole["reason"], f"{hole['asset']} of {hole['partition']}") for hole in causes).items():
        out.print(f"cannot be made: {names}: {escape(reason)}", style="yellow")


def print_sample_size(content: Json, out: Console) -> None:
    """`flywheel plan`."""
    kind = content["type"] or "not profiled yet"
    out.print(
        f"{content['workload']} ({kind}): {content['records']:,} records, {content['eval_rows']:,} eval rows of them",
        style="bold",
    )
    about = f"; the closest is {escape(content['about'])}" if content["about"] else ""
    out.print(f"{content['arms']} variants share alpha {content['alpha']:g}; power {content['power']:g}{about}")
    if content["exam"]:
        out.print(f"the exam: {escape(content['exam']['note'] or 'as split.eval_size says')}")
    table = Table(
        "gate", "margin", "difference", "discordance", "", "rows now", "conversations", "more rows", "more conversations"
    )
    for need in content["gates"]:
        never = need["missing_rows"] is None
        table.add_row(
            escape(need["gate"]),
            f"{need['margin']:.3f}",
            f"{need['difference']:+z.3f}",
            f"{need['discordance']:.3f}",
            "seen" if need["observed"] else "planned",
            f"{need['rows']:,}",
            f"{need['conversations']:,.0f}",
            "no number will do" if never else f"{need['missing_rows']:,}",
            "" if never else f"{need['missing_conversations']:,}",
        )
    out.print(table)
    if content["eval_rows_needed"]:
        out.print(f"in all about {content['eval_rows_needed']:,} more eval rows")
    for sentence in content["what_now"]:
        out.print(sentence)
    for look in content["looks"]:
        out.print(f"look at {look['rows']:,} eval rows: {look['spent']:.4f} of alpha spent by then")
    if content["judging"]:
        _print_judging(content["judging"], out)
    out.print(content["note"], style="dim")


def _print_judging(judging: Json, out: Console) -> None:
    if judging["calls"] is None:
        out.print(f"judge {escape(judging['judge'])}: there are no eval rows yet to say what it costs")
        return
    usd = "no price known" if judging["usd"] is None else f"about ${judging['usd']:.2f}"
    tokens = f"{judging['prompt_tokens']:,} + {judging['completion_tokens']:,} tokens"
    columns = ", ".join(judging["columns"]) or "no column"
    out.print(
        f"judge {escape(judging['judge'])}: {columns}; at most {judging['calls']:,} calls, about {tokens}, {usd}, if every "
        "variant is judged once and nothing is in the cache"
    )


def print_ingest(content: Json, examples: Mapping[str, str], out: Console) -> None:
    """`flywheel ingest`. `examples` has a refused line of each reason, where one is known."""
    out.print(f"{content['new']:,} new, {content['duplicate']:,} duplicate, {content['rejected']:,} rejected")
    for slug, count in sorted(content["workloads"].items()):
        out.print(f"  {slug}: {count:,} new")
    for reason, count in sorted(content["reasons"].items()):
        example = f" (first: {escape(examples[reason])})" if reason in examples else ""
        out.print(f"  rejected: {reason}: {count:,}{example}", style="yellow")
    if content["rejected"]:
        out.print("  What is rejected is kept in the quarantine; docs/log-schema.md explains each reason.", style="yellow")
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
        records = f", about {decision['needed_records']:,} more records" if decision.get("needed_records") else ""
        out.print(f"  {decision['needed_rows']:,} more eval rows are needed for a verdict{records}")
    for reason in decision["reasons"]:
        out.print(f"  - {escape(reason)}")
    if (looks := decision["looks"])["registered"]:
        out.print(f"  looks: {looks['taken']} taken, {looks['spent']:.3g} of alpha {looks['alpha']:g} spent")
    if start := looks["started_over"]:
        out.print(f"  looks were started over on {start['time']} by {start['who']}: {start['why']}", markup=False)
    if lag := decision["lag"]:
        out.print(
            f"  {lag['waiting_records']:,} newer records are not in it; it is {_ago(lag['seconds'])} behind", style="dim"
        )
    if decision["expired"]:
        out.print(f"  (expired: {escape(decision['expired'])})", style="yellow")


def _ago(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def _judge_columns(workload: Json) -> list[str]:
    found = {name for cell in workload["cells"].values() for variant in cell.values() for name in variant["scores"]}
    return [column for column in JUDGE_COLUMNS if column in found]


def _place(problem: Json) -> str:
    return f"{problem['asset']} of {problem['candidate']}" if problem["candidate"] else str(problem["asset"])


def _score(score: Json | None) -> str:
    if not score or score["value"] is None:
        return "-"
    return f"{score['value']:.3f} [{score['low']:.2f}, {score['high']:.2f}]"
