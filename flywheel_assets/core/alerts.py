"""Alerts: what a person is told when something happened that they did not ask for, and what to do about it.

What belongs here: the words, and their two forms (a chat message, a mail). What does not: what counts as news (the sensors)
and how it gets there (`resources.alerts`). No row content: an error's first line passes through the scrubbing of records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from flywheel_assets.core.cleaning.policy import CleaningPolicy
from flywheel_assets.core.cleaning.scrub import scrub_detail
from flywheel_assets.core.rows import Json

_REASON_CHARS = 300
# Of an error that quotes a whole record, more is not worth looking at.
_READ_CHARS = 10 * _REASON_CHARS
# All kinds of personal data and secrets: whatever may stay in a record, it is not for a chat room.
_EVERYTHING = CleaningPolicy()


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing that happened. `id` is the same each time the same thing is noticed; `link` is a URL, or None."""

    id: str
    subject: str
    lines: tuple[str, ...]
    link: str | None = None

    def to_json(self) -> Json:
        """JSON-ready; `from_json` is its inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Alert:
        """The alert `to_json` gave."""
        return cls(value["id"], value["subject"], tuple(value["lines"]), value["link"])


@dataclass(frozen=True, slots=True)
class Standing:
    """What a decision says: what a change of it is a change of."""

    verdict: str
    candidate: str | None
    variant: str | None

    def __str__(self) -> str:
        return f"{self.verdict}: {self.candidate} ({self.variant})" if self.candidate else self.verdict


def run_failed(
    run_id: str, *, workload: str | None, candidate: str | None, failed: Sequence[str], reason: str, ui_url: str | None
) -> Alert:
    """A run of the flywheel that failed: where, what of it, why, and what now. `failed` names assets or steps."""
    where = _where(workload, candidate)
    again = f"`flywheel run {workload}`" if workload else "`flywheel run`"
    return Alert(
        id=f"run-{run_id}",
        subject=f"A run failed: {where}",
        lines=(
            f"What failed: {', '.join(failed) or 'the run itself'}",
            f"Why: {first_line(reason)}",
            f"What now: run {run_id} in the UI has the whole log; {again} tries again.",
        ),
        link=_link(ui_url, f"runs/{run_id}"),
    )


def decision_changed(
    workload: str,
    *,
    before: Standing | None,
    now: Standing,
    reasons: Sequence[str],
    number: int,
    version: str,
    ui_url: str | None,
) -> Alert:
    """A decision that says something else than the one before it (None: it is the first). `number` counts them."""
    was = f"It was {before}." if before is not None else "It is the first decision on this workload."
    next_step = (
        f"What now: read its report, then `flywheel approve {workload} --why ...` or `flywheel reject {workload} --why ...`."
        if now.verdict == "promote"
        else f"What now: `flywheel status` and the decision's report say what would change it (`flywheel plan {workload}`)."
    )
    return Alert(
        id=f"decision-{workload}-{number}-{version}",
        subject=f"{workload}: the decision is now {now}",
        lines=(was, *(first_line(reason) for reason in reasons[:3]), next_step),
        link=_link(ui_url, f"assets/decision?partition={workload}"),
    )


def drifted(workload: str, *, summary: str, since: str, ui_url: str | None) -> Alert:
    """Traffic that is no longer what a decision rested on; `since` names that decision, so that one drift is one alert."""
    return Alert(
        id=f"drift-{workload}-{since}",
        subject=f"{workload}: the traffic has drifted since the decision",
        lines=(
            first_line(summary),
            f"What now: `flywheel run {workload}` decides on today's traffic; until then, mistrust the standing decision.",
        ),
        link=_link(ui_url, f"assets/workload_profile?partition={workload}"),
    )


def chat_message(alert: Alert) -> Json:
    """The body of a Slack-compatible webhook: one text, which others (Mattermost, Rocket.Chat) read as well."""
    parts = [f"*{_plain(alert.subject)}*", *(_plain(line) for line in alert.lines)]
    return {"text": "\n".join(parts + ([alert.link] if alert.link else []))}


def mail_text(alert: Alert) -> tuple[str, str]:
    """Subject and body of a mail."""
    return f"[flywheel] {alert.subject}", "\n".join([*alert.lines, *([alert.link] if alert.link else [])]) + "\n"


def first_line(text: str) -> str:
    """The first line of a reason, short, without personal data, secrets, or the values that an error quotes."""
    lines = text.strip()[:_READ_CHARS].splitlines()
    line = scrub_detail(lines[0].strip(), _EVERYTHING) if lines else "no reason was given"
    return line if len(line) <= _REASON_CHARS else f"{line[: _REASON_CHARS - 3]}..."


def _plain(text: str) -> str:
    """Text that a chat shows and does not obey: `<!channel>` in an error must wake nobody."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _where(workload: str | None, candidate: str | None) -> str:
    return " / ".join(part for part in (workload, candidate) if part) or "everything"


def _link(ui_url: str | None, path: str) -> str | None:
    return f"{ui_url.rstrip('/')}/{path}" if ui_url else None
