"""Runs: whose process a Dagster run lives in, and what to do about runs whose process is dead.

`kill -9` leaves an in-process run STARTED for ever, with its pool slots taken: nothing inside Dagster notices. Every
command and the janitor call `bury_dead_runs` first.
"""

from __future__ import annotations

import time

import dagster as dg
from dagster import DagsterInstance, DagsterRunStatus

from flywheel_assets.core.graph import Partition
from flywheel_assets.resources.processes import ProcessIdentity, this_process

OWNER_TAG = "flywheel/owner"
FLYWHEEL_RUN_TAG = "flywheel/run"
WORKLOAD_TAG = "flywheel/workload"
CANDIDATE_TAG = "flywheel/candidate"
BATCH_TAG = "flywheel/batch"
BATCH_KEY_TAG = "flywheel/inputs"

# NOT_STARTED too: a process killed between creating its run and starting it leaves one, and `reconcile` waits for it.
_ALIVE = [
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]


# A training reports its progress every few minutes, an evaluation every few rows; what says nothing for a day is gone.
GIVEN_UP_AFTER_S = 24 * 3600.0


def partition_tags(partition: Partition) -> dict[str, str]:
    """The tags by which the runs of a workload or a candidate are found in the run list."""
    named = {WORKLOAD_TAG: partition.workload, CANDIDATE_TAG: partition.candidate}
    return {tag: value for tag, value in named.items() if value}


def claim_run(instance: DagsterInstance, run_id: str, partition: Partition) -> None:
    """Write down which process executes a run, so that its death can be noticed, and what the run works on.

    A run that a person launched in the UI has none of these tags before; it is a turn of the loop of its own.
    """
    run = instance.get_run_by_id(run_id)
    if run is None:
        return
    tags = {OWNER_TAG: str(this_process()), **partition_tags(partition)}
    tags[FLYWHEEL_RUN_TAG] = run.tags.get(FLYWHEEL_RUN_TAG) or run_id
    if missing := {tag: value for tag, value in tags.items() if run.tags.get(tag) != value}:
        instance.add_run_tags(run_id, missing)


def flywheel_run_of(context: dg.AssetExecutionContext) -> str:
    """The id of the turn of the loop a run belongs to; a run started by hand is a turn of its own."""
    return context.run.tags.get(FLYWHEEL_RUN_TAG) or context.run_id


def announce_cancelling(instance: DagsterInstance, flywheel_run: str) -> None:
    """Write down that the running runs of a turn are about to be ended on purpose.

    Without this Dagster takes the signal that ends them for an accident, and books the run as failed. A job that turns the
    flywheel has the same tag, and is not ended by it.
    """
    going = dg.RunsFilter(
        tags={FLYWHEEL_RUN_TAG: flywheel_run}, statuses=[DagsterRunStatus.STARTING, DagsterRunStatus.STARTED]
    )
    for run in instance.get_runs(filters=going):
        if BATCH_TAG in run.tags:
            instance.report_run_canceling(run)


def bury_dead_runs(instance: DagsterInstance) -> list[str]:
    """Report runs whose owner is dead as failed and free their pool slots; the ids of those runs.

    A process of another host cannot be looked at from here, and neither can one that died before it wrote its name on its
    run. Such a run is given up when nothing was heard of it for a day; one that is not ours is left alone.
    """
    buried = []
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=_ALIVE)):
        message = _why_dead(instance, run)
        if message is None:
            continue
        instance.report_run_failed(run, message=message)
        if instance.event_log_storage.supports_global_concurrency_limits:
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        buried.append(run.run_id)
    return buried


def _why_dead(instance: DagsterInstance, run: dg.DagsterRun) -> str | None:
    """Why a run that has not ended counts as dead, for people; None while it may be alive."""
    owner = run.tags.get(OWNER_TAG)
    claimed = owner is not None and not _inherited(instance, run, owner)
    if not claimed and BATCH_TAG not in run.tags:
        return None
    identity = ProcessIdentity.known(owner) if owner is not None and claimed else None
    if identity is not None and identity.is_here:
        return f"The process of this run ({owner}) is dead; it was killed. Run it again." if identity.is_dead() else None
    if _silent_s(instance, run) <= GIVEN_UP_AFTER_S:
        return None
    why = "no process ever took it up" if identity is None else f"its host ({identity.host}) is not this one"
    hours = GIVEN_UP_AFTER_S / 3600
    return f"Nothing was heard of this run for {hours:.0f} hours, and {why}. It counts as lost. Run it again."


def _silent_s(instance: DagsterInstance, run: dg.DagsterRun) -> float:
    """Seconds since the last event of a run."""
    last = instance.get_records_for_run(run.run_id, limit=1, ascending=False).records
    record = instance.get_run_record_by_id(run.run_id)
    spoke = last[0].timestamp if last else (record.create_timestamp.timestamp() if record is not None else time.time())
    return time.time() - spoke


def _inherited(instance: DagsterInstance, run: dg.DagsterRun, owner: str) -> bool:
    """Whether the owner is that of the run this one repeats: Dagster copies tags, and nobody has claimed the copy yet."""
    parent = instance.get_run_by_id(run.parent_run_id) if run.parent_run_id else None
    return parent is not None and parent.tags.get(OWNER_TAG) == owner
