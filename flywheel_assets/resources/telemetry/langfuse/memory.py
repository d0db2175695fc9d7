"""Memory: what the next process must know of what this one told Langfuse. One folder a project; small files, replaced whole.

Losing any of it costs requests, or leaves a killed run's trace without an end; it never makes anything told twice.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from flywheel_assets.core.graph import Partition
from flywheel_assets.core.rows import Json
from flywheel_assets.resources.json_files import read_json, write_json
from flywheel_assets.resources.sources.langfuse_api import Access
from flywheel_assets.resources.telemetry.langfuse.identity import digest, seed_of
from flywheel_assets.resources.telemetry.phases import Phase, PhaseKind

# Killed runs are buried within hours; what is older was never told that it had begun.
_OPEN_KEPT_S = 30 * 86_400


class Memory:
    """What is known of one project of one server."""

    def __init__(self, home: Path, access: Access) -> None:
        self._folder = home / "telemetry" / "langfuse" / digest(f"{access.base_url} {access.public_key}")

    def project(self, younger_than_s: float) -> Json | None:
        """The project, unless it was asked for too long ago."""
        kept = _content(self._folder / "project.json")
        return kept["project"] if kept and kept["at"] > time.time() - younger_than_s else None

    def keep_project(self, project: Mapping[str, Any]) -> None:
        """Remember the project as it is now."""
        write_json(self._folder / "project.json", {"project": dict(project), "at": time.time()})

    def sent_items(self, workload: str, dataset_id: str) -> dict[str, str]:
        """The items that a dataset holds, with the digest of what was sent; none where it was made anew since."""
        kept = _content(self._folder / "items" / f"{workload}.json")
        return dict(kept["items"]) if kept and kept["dataset"] == dataset_id else {}

    def keep_items(self, workload: str, dataset_id: str, items: Mapping[str, str]) -> None:
        """Remember what a dataset holds."""
        write_json(self._folder / "items" / f"{workload}.json", {"dataset": dataset_id, "items": dict(items)})

    def open(self, phase: Phase) -> None:
        """Note that a phase has begun."""
        content = asdict(phase) | {"settings": {}}
        write_json(self._open_file(phase), content)

    def close(self, phase: Phase) -> None:
        """Note that its end was told, or was lost."""
        with suppress(OSError):
            self._open_file(phase).unlink(missing_ok=True)

    def left_open(self, dagster_runs: Iterable[str]) -> list[Phase]:
        """The phases of those runs that have begun and not ended."""
        wanted, oldest = set(dagster_runs), time.time() - _OPEN_KEPT_S
        found = []
        for path in (self._folder / "open").glob("*.json"):
            content = _content(path)
            if content and content["dagster_run"] in wanted:
                found.append(_phase(content))
            elif not content or content["started"] < oldest:
                path.unlink(missing_ok=True)
        return found

    def _open_file(self, phase: Phase) -> Path:
        return self._folder / "open" / f"{digest(seed_of(phase))}.json"


def _phase(content: Json) -> Phase:
    known = {field.name: content[field.name] for field in fields(Phase)}
    known |= {"kind": PhaseKind(content["kind"]), "assets": tuple(content["assets"])}
    return Phase(**known | {"partition": Partition(**content["partition"])})


def _content(path: Path) -> Json | None:
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
