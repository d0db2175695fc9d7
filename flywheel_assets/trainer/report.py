"""Reporting: what the training says while it runs, to Dagster through Pipes and to whoever reads `progress.json`.

What belongs here: the pace of messages and the atomic files. What does not: what is measured (`progress`), and the parent's
side of the conversation.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, Protocol

from .failure import TrainerError

PROGRESS_FILE = "progress.json"
ERROR_FILE = "error.json"
REPORT_FILE = "report.json"

# A line in Dagster's event log is a database write; the file is cheap and is what a live display reads.
_LOG_EVERY_S = 4.0
_FILE_EVERY_S = 0.5


class Log(Protocol):
    """What a Pipes logger and a `logging.Logger` have in common."""

    def info(self, message: str) -> Any:
        """Say it."""

    def error(self, message: str) -> Any:
        """Say that something failed."""


class Reporter:
    """Tells the parent and the work folder how the training stands."""

    def __init__(self, work_dir: Path, log: Log) -> None:
        self._work_dir = work_dir
        self._log = log
        self._last_log = -_LOG_EVERY_S
        self._last_file = -_FILE_EVERY_S

    def phase(self, name: str, text: str) -> None:
        """A new phase has begun; always said."""
        self._log.info(text)
        self._write({"phase": name, "text": text})
        self._last_log = time.monotonic()

    def say(self, text: str) -> None:
        """One remark, always said."""
        self._log.info(text)

    def step(self, *, step: int, of: int, loss: float, tokens_per_s: float, seconds_left: float) -> None:
        """An optimizer step is done; said at most every few seconds, but always the first and the last."""
        now = time.monotonic()
        edge = step <= 1 or step >= of
        if edge or now - self._last_file >= _FILE_EVERY_S:
            self._last_file = now
            self._write(
                {
                    "phase": "train",
                    "step": step,
                    "of": of,
                    "loss": loss,
                    "tokens_per_s": round(tokens_per_s, 1),
                    "seconds_left": round(seconds_left, 1),
                }
            )
        if edge or now - self._last_log >= _LOG_EVERY_S:
            self._last_log = now
            self._log.info(
                f"step {step}/{of}, loss {loss:.3f}, {tokens_per_s:.0f} tokens/s, {seconds_left:.0f} s of training left"
            )

    def failed(self, failure: TrainerError) -> None:
        """The training cannot go on: one message, and the same in `error.json`."""
        self._write({"phase": "failed", "text": str(failure)})
        write_json(self._work_dir / ERROR_FILE, failure.to_json())
        self._log.error(str(failure))

    def _write(self, content: dict[str, Any]) -> None:
        write_json(self._work_dir / PROGRESS_FILE, {**content, "at": time.time(), "pid": os.getpid()})


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never a part. NaN is refused (ValueError)."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(content, ensure_ascii=False, allow_nan=False), encoding="utf-8")
    part.replace(path)
