"""Makes `tests/fixtures/home_*.tar.xz`: a home as the version of the package that runs this leaves it behind.

Run it from a checkout of the version that the home shall be of, with this file, `existing_home.py` and what they import from
`tests` beside it:

    PYTHONPATH=. python -m tests.make_existing_home

The home went through two turns and an approval: workload `tickets` (tool calls, turns without a call, sessions, registered
looks) and workload `answers` (text, defaults only), each with a candidate that is trained and one behind a URL. It has the
trace store, every artifact, the prediction cache and the promotions. It has no Dagster instance (whoever opens it
announces everything anew) and no path of the machine that made it. Beside it lie `flywheel.yaml` and the models' files.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path

from dagster import DagsterInstance

from flywheel_assets.core.promotion import Action
from flywheel_assets.resources.promotions import promote
from flywheel_assets.resources.status import status_of
from tests.existing_home import ANSWERS, ARCHIVE, SETTINGS, TICKETS, ExistingHome, flywheel_in, traffic

FIRST = {TICKETS: range(200), ANSWERS: range(110)}
SECOND = {TICKETS: range(200, 240)}
_LEFT_OUT = {"locks", "drafts", "leases.sqlite", "training", "dagster", "logs"}


def main() -> None:
    """Make the home in a temporary folder, and pack it."""
    first = [record for workload, numbers in FIRST.items() for record in traffic(workload, numbers)]
    second = [record for workload, numbers in SECOND.items() for record in traffic(workload, numbers)]
    overrides = {"telemetry": {"enabled": False}}
    with tempfile.TemporaryDirectory() as name, DagsterInstance.local_temp(overrides=overrides) as instance:
        folder = Path(name)
        with flywheel_in(folder, instance, SETTINGS, first + second) as made:
            _turn_with(made, first)
            promote(made.bench.flywheel, TICKETS, Action.APPROVE, who="ada", why="It meets every gate.", act_id="first")
            _turn_with(made, second)
        (folder / "flywheel.yaml").write_text(SETTINGS, encoding="utf-8")
        _pack(folder, ARCHIVE)


def _turn_with(made: ExistingHome, records: list[dict[str, object]]) -> None:
    made.ingest(records)
    report = made.bench.turn()
    if not report.ok:
        raise SystemExit(f"the turn failed: {report.failures or report.holes}")
    for name, workload in status_of(made.bench.flywheel)["workloads"].items():
        print(name, workload["decision"]["verdict"], *workload["decision"]["reasons"], sep="\n  ")


def _pack(folder: Path, archive: Path) -> None:
    with tarfile.open(archive, "w:xz", preset=9) as out:
        for path in [folder / "flywheel.yaml", *sorted(folder.glob("*.gguf")), *sorted((folder / "home").rglob("*"))]:
            inside = path.relative_to(folder)
            if not path.is_file() or _LEFT_OUT & set(inside.parts) or path.suffix == ".lock":
                continue
            content = path.read_bytes()
            if str(folder).encode() in content:
                raise SystemExit(f"{inside} names the folder it was made in")
            entry = tarfile.TarInfo(inside.as_posix())
            entry.size = len(content)
            entry.mode = 0o644
            out.addfile(entry, io.BytesIO(content))


if __name__ == "__main__":
    main()
