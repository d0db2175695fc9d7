"""`flywheel looks`: what was looked at, what that spent of alpha, and starting over."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flywheel_assets.core.looks import Look, counted, entry_to_json
from flywheel_assets.core.rows import Json
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.status import looks_of


def looks_content(flywheel: Flywheel, workload: str) -> Json:
    """What `flywheel looks --json` prints: where alpha stands, and the whole log, oldest first.

    `counts` says of a look whether it was taken since the last start-over.
    """
    entries = flywheel.looks.entries(workload)
    first = len(entries) - len(counted(entries))
    log = [
        {**entry_to_json(entry), **({"counts": place >= first} if isinstance(entry, Look) else {})}
        for place, entry in enumerate(entries)
    ]
    return {"workload": workload, **looks_of(flywheel, workload), "log": log}


def print_looks(content: Json, out: Console) -> None:
    """`flywheel looks`."""
    workload, registered = content["workload"], content["registered"]
    counts = ", ".join(f"{count:,}" for count in registered) or "none: every decision is taken at the full alpha"
    out.print(f"{workload}: looks registered at eval rows: {counts}")
    if registered:
        out.print(f"alpha {content['alpha']:g}: {content['spent']:.4g} spent, {content['left']:.4g} left")
    if content["log"]:
        table = Table("look", "eval rows", "alpha spent", "verdict", "schedule", "taken (UTC)")
        for entry in content["log"]:
            table.add_row(*_row(entry), style="" if entry.get("counts") else "dim")
        out.print(table)
    for entry in content["log"]:
        if entry["kind"] == "start_over":
            out.print(f"started over on {entry['time']} by {entry['who']}: {entry['why']}", markup=False)
    if registered and not content["left"]:
        out.print(f'To look again: flywheel looks {workload} --start-over --why "..."', markup=False)


def _row(entry: Json) -> tuple[str, ...]:
    if entry["kind"] == "start_over":
        return ("-", "", "", "started over", "", entry["time"])
    registered = ", ".join(f"{count:,}" for count in entry["registered"]) or "none"
    winner = f" {entry['winner'][0]} ({entry['winner'][1]})" if entry["winner"] else ""
    return (
        str(entry["number"]),
        f"{entry['rows']:,}",
        f"{entry['alpha']:.4g}",
        escape(f"{entry['verdict']}{winner}"),
        f"{registered}; alpha {entry['total_alpha']:g}",
        entry["time"] or "-",
    )
