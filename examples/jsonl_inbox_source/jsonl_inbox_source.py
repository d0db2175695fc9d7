"""A source outside flywheel_assets: log files in the log schema that another program drops into a folder.

Switched on by `sources: {jsonl_inbox: {folder: /var/log/llm}}` in flywheel.yaml. Files are read in the order of their names,
each once; a file must be complete when it gets its name, and its name must come after those before it.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

from flywheel_assets.core.records import RejectReason
from flywheel_assets.resources.sources import Pull, PulledRecord, PulledReject, SourceError
from flywheel_assets.settings import Settings

LINES_A_STEP = 500


def inbox_source(settings: Settings) -> JsonlInbox | None:
    """The entry point: a source where `sources.jsonl_inbox` names a folder, None where it is not switched on."""
    options = settings.sources.get("jsonl_inbox")
    if options is None:
        return None
    if "folder" not in options:
        raise SourceError("`sources.jsonl_inbox` needs `folder`")
    return JsonlInbox(settings.resolve(str(options["folder"])))


@dataclass(frozen=True)
class JsonlInbox:
    """Reads a folder. The cursor is `{"file", "line"}`: the last file begun, and how many of its lines are read."""

    folder: Path
    name: str = "jsonl_inbox"

    def pull(self, cursor: str | None, *, deadline: float) -> Pull:
        """The next lines, at most LINES_A_STEP of one file."""
        place = json.loads(cursor) if cursor else {"file": "", "line": 0}
        for path in sorted(self.folder.glob("*.jsonl")):
            if path.name < place["file"]:
                continue
            skipped = place["line"] if path.name == place["file"] else 0
            lines = path.read_bytes().splitlines()
            step = lines[skipped : skipped + LINES_A_STEP]
            if step or path.name > place["file"]:
                following = json.dumps({"file": path.name, "line": skipped + len(step)})
                return self._step(path, skipped, step, following, done=time.monotonic() >= deadline)
        return Pull(json.dumps(place), note=f"{self.folder} is read")

    def _step(self, path: Path, skipped: int, lines: list[bytes], cursor: str, *, done: bool) -> Pull:
        records, rejects = [], []
        for number, line in enumerate(lines, skipped + 1):
            where = f"{path.name}:{number}"
            try:
                records.append(PulledRecord(json.loads(line), where))
            except ValueError as error:
                rejects.append(
                    PulledReject(where, RejectReason.NOT_JSON, str(error), line[:160].decode("utf-8", "replace"), where)
                )
        return Pull(cursor, tuple(records), tuple(rejects), done=done, note=f"reading {path.name}")
