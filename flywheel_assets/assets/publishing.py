"""Publishing: what every asset body does around its work, said once.

Claim the run, take the lock, read what is upstream, reuse what is already published, otherwise work in a draft, publish,
and report to Dagster; keep the reason where it ends badly. What does not belong here: the work itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError

from flywheel_assets.assets.keys import asset_key
from flywheel_assets.assets.metadata import link
from flywheel_assets.core.graph import BY_NAME, RECORDS, Partition, Scope
from flywheel_assets.core.planner import Inputs, inputs_of
from flywheel_assets.core.rows import Json
from flywheel_assets.partitions import partition_of
from flywheel_assets.resources.artifacts import Artifact, Draft, Made
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.processes import KilledFromOutside
from flywheel_assets.resources.runs import claim_run, flywheel_run_of
from flywheel_assets.resources.seals import Tampered, seal_of
from flywheel_assets.resources.telemetry import Phase, PhaseStatus, Told, Watch
from flywheel_assets.resources.telemetry.losses import warning_of
from flywheel_assets.resources.telemetry.phases import kind_of
from flywheel_assets.seals import SEAL_TAG, VERSION_TAG, require_untouched

INPUTS_KEY_TAG = "flywheel/inputs_key"
Events = Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]
Describe = Callable[[Artifact], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class CheckOutcome:
    """One asset check as it came out. A failed `blocking` one keeps everything downstream from being built."""

    name: str
    passed: bool
    message: str
    blocking: bool = True
    details: Json | None = None


class Refusal(Exception):
    """The work cannot be done with these inputs, and a person must act. `check` names the asset check it fails."""

    def __init__(self, message: str, *, check: tuple[str, str] | None = None) -> None:
        super().__init__(message)
        self.check = check


class Undescribed(Exception):
    """What was made cannot be put into words for Dagster's page: a fault of ours, and the log says where."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a body made of one asset: its declaration, its checks, and what to do once that cannot be lost any more."""

    made: Made
    checks: Sequence[CheckOutcome] = ()
    once_published: Callable[[], object] | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """What a body has in hand: where it runs, what is upstream, a draft folder for each asset it makes, and who is told."""

    context: dg.AssetExecutionContext
    flywheel: Flywheel
    partition: Partition
    inputs: Mapping[str, Inputs]
    drafts: Mapping[str, Draft]
    watch: Watch

    def upstream(self, name: str) -> Artifact:
        """The current version of an upstream asset, at the workload if it is partitioned by workload only."""
        return self.flywheel.artifacts.require(name, _at(name, self.partition))

    def trusted(self, name: str) -> Artifact:
        """`upstream`, of which every file was seen to be what was published."""
        artifact = self.upstream(name)
        require_untouched(self.context.instance, [artifact])
        return artifact

    def previous(self, name: str) -> Artifact | None:
        """The version of one of this body's own assets that is about to be replaced."""
        return self.flywheel.artifacts.current(name, self.partition)

    def draft(self, name: str) -> Draft:
        """The draft of one of this body's own assets."""
        return self.drafts[name]


Body = Callable[[Work], Mapping[str, Outcome]]


def publish(
    context: dg.AssetExecutionContext, flywheel: Flywheel, names: Sequence[str], body: Body, describe: Mapping[str, Describe]
) -> Events:
    """Run `body` for the assets `names` of the current partition and report each; see the module docstring.

    Raises dg.Failure with the message a person should read; an interruption is passed on and is no failure.
    """
    partition = partition_of(context)
    claim_run(context.instance, context.run_id, partition)
    _refuse_unexamined_cell(flywheel, partition)
    with ExitStack() as locks:
        for name in names:
            locks.enter_context(flywheel.artifacts.lock(name, partition))
        inputs = {name: _inputs(flywheel, name, partition) for name in names}
        artifacts = {name: flywheel.artifacts.find(name, partition, inputs[name].key) for name in names}
        told = Told()
        if all(artifacts.values()):
            context.log.info("Nothing to compute: already published for exactly these inputs.")
            try:
                # What is reported again is sealed again: it must still be what was sealed before.
                require_untouched(context.instance, artifacts.values())
            except Tampered as error:
                _keep_reason(context, flywheel, partition, inputs, error)
                raise dg.Failure(description=str(error), allow_retries=False) from error
            for artifact in artifacts.values():
                flywheel.artifacts.point_to(artifact)  # type: ignore[arg-type]  # all() above says none is None
        else:
            watch = flywheel.telemetry.begin(_phase(context, flywheel, names, partition, inputs))
            try:
                artifacts = dict(_make(context, flywheel, names, partition, inputs, body, watch))
            except (DagsterExecutionInterruptedError, KeyboardInterrupt):
                watch.end(PhaseStatus.KILLED)
                raise
            except Exception as error:
                _say_lost(context, flywheel, watch.end(PhaseStatus.FAILED, error=_first_words(error)))
                _keep_reason(context, flywheel, partition, inputs, error)
                if isinstance(error, Refusal) and error.check is not None:
                    asset, check = error.check
                    yield dg.AssetCheckResult(
                        asset_key=asset_key(asset), check_name=check, passed=False, description=_first_words(error)
                    )
                raise dg.Failure(description=str(error), allow_retries=False) from error
            made = [artifact for artifact in artifacts.values() if artifact is not None]
            bad = next((artifact for artifact in made if artifact.state == "failed"), None)
            ended = PhaseStatus.FAILED if bad else PhaseStatus.FINISHED
            told = watch.end(ended, made, error=bad.reason if bad else None)
            _say_lost(context, flywheel, told)
        try:
            # All of them before the first is reported: no half of a body is told. What cannot be described is no success.
            published = [artifact for artifact in artifacts.values() if artifact is not None]
            results = [_result(context, flywheel, artifact, describe[artifact.asset], told) for artifact in published]
        except Exception as error:
            undescribed = Undescribed(f"{', '.join(names)} of {partition}: made, but it cannot be shown ({error!r})")
            _keep_reason(context, flywheel, partition, inputs, undescribed)
            raise dg.Failure(description=str(undescribed), allow_retries=False) from error
        yield from results


def _keep_reason(
    context: dg.AssetExecutionContext,
    flywheel: Flywheel,
    partition: Partition,
    inputs: Mapping[str, Inputs],
    error: Exception,
) -> None:
    """Write down why an attempt ended badly: for the planner, which would otherwise start it again for ever."""
    message = _first_words(error)
    for name, read in inputs.items():
        if isinstance(error, KilledFromOutside):
            flywheel.artifacts.record_kill(name, partition, read.key, said=message, run_id=context.run_id)
        else:
            flywheel.artifacts.record_failure(name, partition, read.key, message, context.run_id)


def _phase(
    context: dg.AssetExecutionContext,
    flywheel: Flywheel,
    names: Sequence[str],
    partition: Partition,
    inputs: Mapping[str, Inputs],
) -> Phase:
    return Phase(
        kind=kind_of(names[0]),
        name=names[0],
        assets=tuple(names),
        partition=partition,
        dagster_run=context.run_id,
        flywheel_run=flywheel_run_of(context),
        run_url=flywheel.telemetry.run_url(context.run_id),
        started=time.time(),
        settings={name: flywheel.settings_slice(name, partition) for name in names},
        inputs={name: dict(inputs[name].versions) for name in names},
    )


def _say_lost(context: dg.AssetExecutionContext, flywheel: Flywheel, told: Told) -> None:
    """One warning that says what was lost, however many observers lost it; in the same run and for the same reason, one."""
    news = [lost for lost in told.lost if flywheel.telemetry.is_news(context.run_id, lost)]
    if news:
        context.log.warning(warning_of(news))


def _make(
    context: dg.AssetExecutionContext,
    flywheel: Flywheel,
    names: Sequence[str],
    partition: Partition,
    inputs: Mapping[str, Inputs],
    body: Body,
    watch: Watch,
) -> Iterator[tuple[str, Artifact]]:
    with ExitStack() as drafts:
        work = Work(
            context=context,
            flywheel=flywheel,
            partition=partition,
            inputs=inputs,
            drafts={name: drafts.enter_context(flywheel.artifacts.draft()) for name in names},
            watch=watch,
        )
        for draft_name, draft in work.drafts.items():
            draft.inherit_hashes(work.previous(draft_name))
        outcomes = body(work)
        for name in names:
            yield name, _store(work, name, outcomes[name])
            if (then := outcomes[name].once_published) is not None:
                then()


def _store(work: Work, name: str, outcome: Outcome) -> Artifact:
    """Publish one draft, its checks kept beside it so that a reused version can report them again."""
    failed = [check for check in outcome.checks if check.blocking and not check.passed]
    checks = [
        {
            "name": check.name,
            "passed": check.passed,
            "message": check.message,
            "blocking": check.blocking,
            "details": check.details or {},
        }
        for check in outcome.checks
    ]
    made = replace(
        outcome.made,
        summary={**outcome.made.summary, "checks": checks},
        blocked=failed[0].message if failed and outcome.made.state != "failed" else None,
    )
    inputs = work.inputs[name]
    return work.flywheel.artifacts.publish(
        work.drafts[name],
        name,
        work.partition,
        made,
        inputs_key=inputs.key,
        inputs=inputs.versions,
        settings=work.flywheel.settings_slice(name, work.partition),
        code_version=BY_NAME[name].code_version,
        origin={"dagster_run": work.context.run_id, "flywheel_run": flywheel_run_of(work.context)},
    )


def _result(
    context: dg.AssetExecutionContext, flywheel: Flywheel, artifact: Artifact, describe: Describe, told: Told
) -> dg.MaterializeResult[Any]:
    """The event that echoes a published version."""
    state = {"state": artifact.state} | ({"reason": artifact.reason} if artifact.reason else {})
    return dg.MaterializeResult(
        asset_key=asset_key(artifact.asset),
        data_version=dg.DataVersion(artifact.data_version),
        metadata={
            **state,
            **_for_people_first(describe(artifact)),
            **{name: link(url) for name, url in told.links.items()},
            "version": artifact.version,
            "folder": _folder(flywheel, artifact),
        },
        tags={INPUTS_KEY_TAG: artifact.inputs_key, VERSION_TAG: artifact.version, SEAL_TAG: seal_of(artifact)},
        check_results=[
            dg.AssetCheckResult(
                asset_key=asset_key(artifact.asset),
                check_name=check["name"],
                passed=check["passed"],
                severity=dg.AssetCheckSeverity.ERROR if check["blocking"] else dg.AssetCheckSeverity.WARN,
                description=check["message"],
                metadata=check["details"],
            )
            for check in (*artifact.summary.get("checks", ()), *_not_applicable(context, artifact))
        ],
    )


def _folder(flywheel: Flywheel, artifact: Artifact) -> dg.PathMetadataValue:
    """Where it lies, as seen from the clone: Dagster breaks no path, and a whole one is wider than the page of a cell."""
    root = flywheel.settings.root
    inside = artifact.path.is_relative_to(root)
    return dg.MetadataValue.path(str(artifact.path.relative_to(root) if inside else artifact.path))


def _for_people_first(shown: Mapping[str, Any]) -> Mapping[str, Any]:
    """What Dagster reads for itself (`dagster/...`) stands below what a person reads."""
    return dict(sorted(shown.items(), key=lambda entry: entry[0].startswith("dagster/")))


def _not_applicable(context: dg.AssetExecutionContext, artifact: Artifact) -> Iterator[Json]:
    """The declared checks of an asset that was skipped: Dagster fails a step whose checks say nothing."""
    if artifact.state != "skipped":
        return
    told = {check["name"] for check in artifact.summary.get("checks", ())}
    for check in context.assets_def.check_specs:
        if check.asset_key == asset_key(artifact.asset) and check.name not in told:
            message = f"Not applicable: {artifact.reason}"
            yield {"name": check.name, "passed": True, "message": message, "blocking": check.blocking, "details": {}}


def _inputs(flywheel: Flywheel, name: str, partition: Partition) -> Inputs:
    only = [partition.workload] if partition.workload else None
    # What came since the records were read is for the next turn: a body that saw it would find its upstream stale, and make
    # something else than what it was planned for.
    state = flywheel.state(only, as_read=name != RECORDS)
    inputs = inputs_of((name, partition), state)
    if inputs.missing:
        lacks = "; ".join(f"{hole.asset} of {hole.partition} ({hole.reason})" for hole in inputs.missing)
        raise dg.Failure(
            description=f"{name} of {partition} needs {lacks}. "
            f"Materialize that first, or run `flywheel run {partition.workload}`.",
            allow_retries=False,
        )
    return inputs


def _refuse_unexamined_cell(flywheel: Flywheel, partition: Partition) -> None:
    if not partition.candidate:
        return
    candidate = flywheel.settings.candidate(partition.candidate)
    if candidate.workloads is not None and partition.workload not in candidate.workloads:
        raise dg.Failure(
            description=f"candidate '{candidate.id}' is not examined on workload '{partition.workload}'. "
            f"Add it to `candidates[{candidate.id}].workloads` in flywheel.yaml.",
            allow_retries=False,
        )


def _at(name: str, partition: Partition) -> Partition:
    return partition if BY_NAME[name].scope is Scope.CELL else Partition(partition.workload)


def _first_words(error: Exception) -> str:
    """The message for refs and tables: the first line is enough there, the run's log has the rest."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:500]
