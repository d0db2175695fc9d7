"""Promotions at work: the history of what people approved, on disk, and the door through which an act gets into it.

What belongs here: keeping acts, and refusing what the present decision does not allow. What does not: what follows from them
(`core.promotion`).
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from flywheel_assets.core import graph
from flywheel_assets.core.graph import Partition
from flywheel_assets.core.planner import every_failure, plan
from flywheel_assets.core.promotion import Act, Action, PromotionRefused, checked, serving
from flywheel_assets.core.rows import Json, Variant
from flywheel_assets.resources.artifacts import Artifact
from flywheel_assets.resources.expiry import why_expired
from flywheel_assets.resources.json_files import Damaged, read_json, write_json
from flywheel_assets.resources.provenance import adapter_of

if TYPE_CHECKING:
    from flywheel_assets.resources.flywheel import Flywheel


class PromotionLog:
    """What people did, one file a workload: `promotions/<workload>.json`, a list that only grows."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "promotions"

    def acts(self, workload: str) -> tuple[Act, ...]:
        """Everything that was done about a workload, oldest first."""
        try:
            return tuple(Act.from_json(value) for value in read_json(self._file(workload)) or ())
        except (TypeError, KeyError, AttributeError) as error:
            raise Damaged(self._file(workload), error) from None

    def append(self, act: Act) -> bool:
        """Add an act; False where it was there already. PromotionRefused as `core.promotion.checked` says."""
        file = self._file(act.workload)
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            acts = self.acts(act.workload)
            if checked(acts, act) is None:
                return False
            write_json(file, [known.to_json() for known in (*acts, act)])
            return True

    def digests(self) -> dict[str, str]:
        """A hash of the acts of each workload that has any: what makes the catalog stale."""
        return {
            file.stem: hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in sorted(self._folder.glob("*.json"))
        }

    def _file(self, workload: str) -> Path:
        return self._folder / f"{workload}.json"


def promote(flywheel: Flywheel, workload: str, action: Action, *, who: str, why: str, act_id: str) -> Act:
    """Record what a person does with the current decision of a workload, and return it.

    Approving and rejecting are about the current decision, which must be a `promote`, and for approval up to date and not
    expired; rolling back is about what serves now. Raises PromotionRefused otherwise. `act_id` makes a repeated call
    harmless.
    """
    log = flywheel.promotions
    told = next((act for act in log.acts(workload) if act.id == act_id), None)
    if told is not None:
        return told
    now = datetime.now(UTC).isoformat(timespec="seconds")
    if action is Action.ROLLBACK:
        current = serving(log.acts(workload))
        if current is None:
            raise PromotionRefused(f"workload '{workload}': the teacher serves it; there is nothing to roll back.")
        about: Json = {key: getattr(current, key) for key in ("decision", "candidate", "variant", "adapter_version")}
    else:
        about = _winner(flywheel, workload, action)
    act = Act(id=act_id, action=action, workload=workload, who=who.strip(), why=why.strip(), time=now, **about)
    log.append(act)
    return act


def _winner(flywheel: Flywheel, workload: str, action: Action) -> Json:
    where = f"workload '{workload}'"
    decision = flywheel.artifacts.current(graph.DECISION, Partition(workload))
    if decision is None:
        raise PromotionRefused(f"{where}: nothing is decided yet. Run `flywheel run {workload}` first.")
    verdict = decision.summary["verdict"]
    if decision.summary["candidate"] is None:
        raise PromotionRefused(
            f"{where}: the verdict is `{verdict}`, so there is nothing to {action}. `flywheel status` says why."
        )
    if action is Action.APPROVE:
        _refuse_what_does_not_hold_any_more(flywheel, workload, decision)
    adapter = adapter_of(flywheel.artifacts, decision)
    if adapter is None and decision.summary["variant"] == Variant.CUSTOMIZED:
        raise PromotionRefused(f"{where}: the adapter that was examined is gone. Run `flywheel run {workload}`.")
    return {
        "decision": decision.version,
        "candidate": decision.summary["candidate"],
        "variant": decision.summary["variant"],
        "adapter_version": None if adapter is None else adapter.version,
    }


def _refuse_what_does_not_hold_any_more(flywheel: Flywheel, workload: str, decision: Artifact) -> None:
    state = flywheel.state([workload], as_read=True)
    watermark = flywheel.traces.watermark(workload)
    reason = why_expired(flywheel, decision, watermark, plan(state, given_up=every_failure(state)))
    if reason is not None:
        raise PromotionRefused(f"workload '{workload}': {reason}.")
