"""`flywheel approve`, `reject` and `rollback`, with Dagster: record the act, and bring the catalog up to date by it."""

from __future__ import annotations

import getpass
import logging
import uuid

import dagster as dg

from flywheel_assets.assets.distribution import CATALOG_OP, PersonDoes
from flywheel_assets.core.graph import Partition
from flywheel_assets.core.promotion import TEACHER, Action, serving
from flywheel_assets.core.rows import Json
from flywheel_assets.definitions import build_defs
from flywheel_assets.jobs import PROMOTE_JOB
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.promotions import promote
from flywheel_assets.resources.runs import partition_tags
from flywheel_assets.seals import require_untouched_evidence
from flywheel_assets.settings import Settings

_DONE = {Action.APPROVE: "Approved", Action.REJECT: "Rejected", Action.ROLLBACK: "Rolled back"}


def act(instance: dg.DagsterInstance, settings: Settings, action: str, workload: str, *, who: str | None, why: str) -> Json:
    """`{"ok", "act", "serving", "says"}`; a run of the instance publishes the catalog. PromotionRefused as `promote` says.

    The act is kept first: should the run fail, the planner finds the catalog stale and makes it again.
    """
    flywheel = Flywheel.at_home(settings)
    require_untouched_evidence(instance, flywheel, workload, Action(action))
    done = promote(
        flywheel, workload, Action(action), who=who or getpass.getuser(), why=why, act_id=f"cli-{uuid.uuid4().hex[:12]}"
    )
    defs = build_defs(settings, loggers={"console": _silent})
    job = defs.resolve_job_def(PROMOTE_JOB)
    nothing = {"action": PersonDoes.nothing.value}
    config = {"ops": {CATALOG_OP: {"config": nothing}}, "loggers": {"console": {}}}
    tags = partition_tags(Partition(workload))
    run = job.execute_in_process(instance=instance, run_config=config, tags=tags, raise_on_error=False)
    served = serving(flywheel.promotions.acts(workload))
    now = TEACHER if served is None else served.model
    says = f"{_DONE[done.action]}: {done.model} for '{workload}'. Serving it now: {now}."
    if not run.success:
        says += f" But model_selection.json could not be updated: look at run {run.run_id}, then `flywheel run`."
    return {"ok": run.success, "act": done.to_json(), "serving": None if served is None else served.to_json(), "says": says}


@dg.logger
def _silent(_: dg.InitLoggerContext) -> logging.Logger:
    """The command prints one line itself; the run's own log is in Dagster."""
    quiet = logging.Logger("flywheel.promote", logging.CRITICAL)
    quiet.addHandler(logging.NullHandler())
    return quiet
