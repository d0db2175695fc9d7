"""Jobs: what a person starts by name from the launchpad.

What belongs here: the three jobs, their launchpad defaults, and what a run of one says about itself. What does not: what is
stale (`core.planner`), executing it (`runner`), and the assets themselves, which anyone can materialize without a job.

A Dagster run has one partitions definition, so no job can make a workload's datasets and its cells' adapters itself.
`refresh_workload` and `evaluate_candidate` therefore turn the flywheel as `flywheel run` does: the planner's answer, in
runs of their own that the job starts, watches and ends.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import dagster as dg

from flywheel_assets.assets.distribution import CATALOG_OP
from flywheel_assets.assets.keys import asset_key
from flywheel_assets.booking import RunReport
from flywheel_assets.core.graph import CATALOG, Partition
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.runs import BATCH_TAG, FLYWHEEL_RUN_TAG, claim_run
from flywheel_assets.runner import Choice, new_flywheel_run, slugs_of
from flywheel_assets.settings import Settings, SettingsError

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

PROMOTE_JOB = "promote"
REFRESH_JOB = "refresh_workload"
EVALUATE_JOB = "evaluate_candidate"
# What stands in the launchpad where flywheel.yaml names no workload: they are found in the traffic.
_A_WORKLOAD = "the workload's slug"

Chosen = Callable[[Mapping[str, Any]], Choice]


def flywheel_jobs(settings: Settings) -> "list[dg.JobDefinition | UnresolvedAssetJobDefinition]":
    """`refresh_workload`, `evaluate_candidate` and `promote`."""
    return [_refresh_job(settings), _evaluate_job(settings), promote_job()]


def promote_job() -> "UnresolvedAssetJobDefinition":
    """Approve, reject or roll back from the launchpad; the same as `flywheel approve`, `reject` and `rollback`."""
    asked = {"action": "approve", "workload": _A_WORKLOAD, "who": "your name", "why": "what convinced you"}
    return dg.define_asset_job(
        PROMOTE_JOB,
        selection=dg.AssetSelection.assets(asset_key(CATALOG)),
        description="A person approves, rejects or rolls back: fill in the four values and launch. `rollback` takes back "
        "what serves now. Who, when and why are kept in model_selection.json.",
        config={"ops": {CATALOG_OP: {"config": asked}}},
    )


def _refresh_job(settings: Settings) -> dg.JobDefinition:
    return _turning_job(
        REFRESH_JOB,
        "refresh",
        "Brings one workload up to date, from its records to its decision: whatever is stale is made, in runs of its own, "
        "and nothing else. The same as `flywheel run WORKLOAD`. Ending this run ends what it started.",
        {"workload": _workload_field()},
        {"workload": _first_workload(settings)},
        lambda config: Choice((config["workload"],)),
    )


def _evaluate_job(settings: Settings) -> dg.JobDefinition:
    # Dagster knows a type of the launchpad by its name for as long as the process lives: another list is another type.
    named = hashlib.sha256(" ".join(one.id for one in settings.candidates).encode()).hexdigest()[:8]
    candidates = dg.Enum(
        f"Candidate_{named}",
        [dg.EnumValue(one.id, description=one.description or one.model) for one in settings.candidates],
    )
    return _turning_job(
        EVALUATE_JOB,
        "evaluate",
        "Examines one candidate on one workload: base, prefixed, and customized with the training that needs; datasets "
        "first where they are stale. The same as `flywheel run WORKLOAD --candidate CANDIDATE`. What is up to date is not "
        "made again. Ending this run ends what it started.",
        {
            "workload": _workload_field(),
            "candidate": dg.Field(candidates, description="A candidate of flywheel.yaml, by its id."),
        },
        {"workload": _first_workload(settings), "candidate": settings.candidates[0].id},
        lambda config: Choice((config["workload"],), (config["candidate"],)),
    )


def _workload_field() -> dg.Field:
    return dg.Field(str, description="The workload, by slug or original id, as the partitions of `records` name it.")


def _first_workload(settings: Settings) -> str:
    return next(iter(settings.workloads), _A_WORKLOAD)


def _turning_job(
    name: str, op_name: str, description: str, fields: Mapping[str, dg.Field], shown: Mapping[str, str], chosen: Chosen
) -> dg.JobDefinition:
    """A job of one op that turns the flywheel for a choice; `shown` stands in the launchpad."""

    @dg.op(name=op_name, description=description, config_schema=dict(fields), out=dg.Out(dg.Nothing))
    def turn_the_flywheel(context: dg.OpExecutionContext, flywheel: dg.ResourceParam[Flywheel]) -> None:
        _turn(context, flywheel, chosen(context.op_config))

    @dg.job(name=name, description=description, config={"ops": {op_name: {"config": dict(shown)}}})
    def job() -> None:
        turn_the_flywheel()

    return job


def _turn(context: dg.OpExecutionContext, flywheel: Flywheel, choice: Choice) -> None:
    """Turn the flywheel for `choice`; dg.Failure names what could not be made, and why.

    Takes no pool and no place of the run queue from the runs it starts: they are executed beside it, not queued.
    """
    # Imported here: `run_worker` makes the definitions itself, of which this job is one.
    from flywheel_assets.run_worker import turn_in_processes

    try:
        choice = Choice(slugs_of(flywheel, choice.workloads), choice.candidates)
    except SettingsError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from error
    partition = Partition(choice.workloads[0], "".join(choice.candidates))
    flywheel_run = context.run.tags.get(FLYWHEEL_RUN_TAG) or new_flywheel_run()
    context.instance.add_run_tags(context.run_id, {FLYWHEEL_RUN_TAG: flywheel_run})
    claim_run(context.instance, context.run_id, partition)
    tag = f"{FLYWHEEL_RUN_TAG}={flywheel_run}"
    where = f"{flywheel.settings.telemetry.ui_url.rstrip('/')}/runs?q[0]={quote(f'tag:{tag}')}"
    context.log.info(f"{partition}: what is stale is made in runs of its own, which carry the tag {tag}: {where}")
    # Where the workers look for the instance; plain `dagster dev` in the clone sets no variable.
    os.environ.setdefault("DAGSTER_HOME", str(flywheel.settings.root))
    report = turn_in_processes(context.instance, flywheel, choice, context.log.info, flywheel_run=flywheel_run)
    context.add_output_metadata(_told(context.instance, report))
    if not report.ok:
        raise dg.Failure(
            description=f"{partition}: {_what_is_missing(report)} Mend the cause and launch again: what is done stays done.",
            metadata=_told(context.instance, report),
            allow_retries=False,
        )
    made = f"{len(report.materialized)} made" if report.materialized else "nothing was stale"
    context.log.info(f"{partition}: {made} in {report.wall_s:.0f} s")


def _told(instance: dg.DagsterInstance, report: RunReport) -> Mapping[str, Any]:
    """What a job's run shows of the runs it started."""
    runs = instance.get_runs(filters=dg.RunsFilter(tags={FLYWHEEL_RUN_TAG: report.flywheel_run}))
    started = [run for run in reversed(runs) if BATCH_TAG in run.tags]
    return {
        "made": ", ".join(report.materialized) or "nothing: all of it was up to date",
        **{_stands(run): dg.MetadataValue.dagster_run(run.run_id) for run in started},
        FLYWHEEL_RUN_TAG: report.flywheel_run,
    }


def _stands(run: dg.DagsterRun) -> str:
    """A run by what it works on, and how it ended."""
    return f"{run.tags[BATCH_TAG]} ({run.status.value.lower()})"


def _what_is_missing(report: RunReport) -> str:
    """Every failure, and what could not be made for another reason than those."""
    told = [f"{name}: {message}" for name, message in report.failures.items()]
    holes = [hole for hole in report.holes if not hole.inherited]
    others = [(f"{hole.asset} of {hole.partition}", hole.reason) for hole in holes]
    told += [f"{name}: {reason}" for name, reason in others if name not in report.failures]
    return " ".join(line if line.endswith(".") else f"{line}." for line in told)
