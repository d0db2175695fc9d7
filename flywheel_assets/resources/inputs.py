"""Inputs: which part of the settings each asset partition reads, and which partitions are asked for at all.

A slice holds what changes the *meaning* of a result and nothing else: concurrency, time-outs and thread counts are left
out, so turning them makes nothing stale.
"""

from __future__ import annotations

from flywheel_assets.core import graph
from flywheel_assets.core.cleaning import CleaningPolicy, QualityPolicy
from flywheel_assets.core.costs import TokenPrice
from flywheel_assets.core.gates import COST, LATENCY, Against, Gate, GateKind
from flywheel_assets.core.graph import Partition
from flywheel_assets.core.judge import JUDGE_COLUMNS
from flywheel_assets.core.metrics import installed_versions
from flywheel_assets.core.rows import Json, WorkloadType
from flywheel_assets.core.suites import DomainRule
from flywheel_assets.resources.credentials import without_credentials
from flywheel_assets.resources.hub import place_of, repository_of
from flywheel_assets.resources.judge.choice import judge_slice
from flywheel_assets.resources.model_identity import model_identity, template_hash
from flywheel_assets.settings import Candidate, Engine, FinetuneMode, Settings

_GATE_KINDS = {
    "margin": GateKind.NON_INFERIOR,
    "floor": GateKind.FLOOR,
    "improvement": GateKind.IMPROVEMENT,
    "zero_tolerance": GateKind.ZERO_TOLERANCE,
    LATENCY: GateKind.BUDGET,
    COST: GateKind.BUDGET,
}
# The teacher's name where candidates have theirs: in messages, and in the price table where its model has no line.
TEACHER_ID = "teacher"
_TRAINING_WITHOUT_MEANING = {"save_steps", "timeout_minutes", "device"}
_CLEANING_OF_RECORDS = {"scrub", "allow", "entities", "near_duplicates", "similarity"}
# What is scrubbed shows in the version of the records; which rows nearly repeat each other does not.
_CLEANING_OF_DATASETS = {"near_duplicates", "similarity", "drop_truncated", "drop_refusals", "min_feedback"}
# Read when an exam is planned, which is once; and values with which nothing is done that was not always done.
_SPLIT_OF_THE_FIRST_BUILD = {"max_eval_calls"}
# What an exam is planned from, once, is no part of what is decided on it.
_DECISION_WITHOUT_MEANING = {"max_age_days", "expected_loss", "expected_gain", "expected_discordance"}
_SPLIT_LEFT_OPEN = {"eval_share": None, "draw": None, "max_rows_per_conversation": None, "rare_class_floor": 0}
_EVALUATION_WITH_MEANING = {"max_tokens", "max_error_share"}


def settings_slice(settings: Settings, asset: str, partition: Partition) -> Json:
    """What a partition of an asset reads from the settings, JSON-ready."""
    workload = partition.workload
    if asset == graph.RECORDS:
        cleaning = settings.cleaning_for(workload).model_dump(mode="json", include=_CLEANING_OF_RECORDS)
        return {"max_record_bytes": settings.local.max_record_bytes, "cleaning": cleaning}
    if asset == graph.PROFILE:
        return {
            "workload_type": workload_type(settings, workload),
            "train_only_sources": train_only_sources(settings, workload),
        }
    if asset in (graph.BASE, graph.TRAIN):
        labels = {"suites": settings.suites_for(workload).model_dump(mode="json")} if asset == graph.BASE else {}
        return {
            **labels,
            "split": _split(settings, workload),
            "train_only_sources": train_only_sources(settings, workload),
            "cleaning": settings.cleaning_for(workload).model_dump(mode="json", include=_CLEANING_OF_DATASETS),
        }
    if asset == graph.COMPARISON:
        judge = judge_slice(settings, workload)
        return {
            "candidates": [_label(candidate) for candidate in settings.candidates_of(workload)],
            "prices": _prices(settings),
            # Which columns there are; the verdicts in them are part of the evaluations' versions.
            **({} if judge is None else {"judged": {key: judge[key] for key in ("tool_calls", "pairwise")}}),
        }
    if asset == graph.DECISION:
        # A comparison means the same at any price; budgets and the order of winners do not.
        return {
            **settings.decision_for(workload).model_dump(mode="json", exclude=_DECISION_WITHOUT_MEANING),
            "prices": _prices(settings),
        }
    if asset == graph.TEACHER_EVAL:
        teacher = settings.teacher_for(workload)
        judge = judge_slice(settings, workload)
        return {
            **({} if judge is None else {"judge": judge}),
            "metrics": installed_versions(),
            "price": _prices(settings).get(teacher.model_name or TEACHER_ID),
            "model": f"{without_credentials(teacher.model or '')}#{teacher.model_name or ''}",
            "evaluation": settings.evaluation_for(workload).model_dump(mode="json", include=_EVALUATION_WITH_MEANING),
        }
    if asset == graph.PREFIX:
        return settings.prefix_for(workload).model_dump(mode="json")
    if partition.candidate:
        return _cell_slice(settings, asset, workload, settings.candidate(partition.candidate))
    return {}


def untrained(settings: Settings) -> frozenset[str]:
    """The candidates that are never trained, whatever the workload: an endpoint's, and those that say so."""
    return frozenset(one.id for one in settings.candidates if one.is_remote or not one.trainable)


def _split(settings: Settings, workload: str) -> Json:
    """What the datasets read of `split`. What is left to the first build is left out: older homes know nothing of it."""
    split = settings.split_for(workload).model_dump(mode="json", exclude=_SPLIT_OF_THE_FIRST_BUILD)
    return {key: value for key, value in split.items() if key not in _SPLIT_LEFT_OPEN or value != _SPLIT_LEFT_OPEN[key]}


def _cell_slice(settings: Settings, asset: str, workload: str, candidate: Candidate) -> Json:
    if asset == graph.FINETUNE_DECISION:
        finetune = settings.finetune_for(workload)
        read = finetune.model_dump(mode="json") if finetune.mode is FinetuneMode.IF_NEEDED else {"mode": finetune.mode}
        return {**read, "trainable": candidate.trainable, "engine": candidate.engine}
    if asset == graph.ADAPTER:
        training = settings.training_for(workload, candidate.id).model_dump(mode="json", exclude=_TRAINING_WITHOUT_MEANING)
        return {
            "training": training,
            "model": model_identity(settings, candidate),
            "template": template_hash(settings, candidate),
            **({"customizer": candidate.nim.model_dump(mode="json")["customizer_configs"]} if candidate.nim else {}),
        }
    if asset == graph.VALIDATION_EVAL or asset in graph.EVALS.values():
        # The type that selects the metrics is part of the eval rows' version, and not of the training rows'.
        scored_as = {"workload_type": workload_type(settings, workload)} if asset == graph.VALIDATION_EVAL else {}
        judge = judge_slice(settings, workload) if judged(settings, asset, workload) else None
        return {
            **scored_as,
            **({} if judge is None else {"judge": judge}),
            "metrics": installed_versions(),
            "price": _prices(settings).get(candidate.id),
            **({"asked_by": settings.nemo.evaluation} if candidate.nim else {}),
            "model": model_identity(settings, candidate),
            "template": template_hash(settings, candidate),
            "engine": candidate.engine,
            "context_length": candidate.context_length,
            "evaluation": settings.evaluation_for(workload).model_dump(mode="json", include=_EVALUATION_WITH_MEANING),
        }
    return {}


def publication_slice(settings: Settings, workload: str, candidate_id: str | None) -> Json:
    """What the publication of a candidate's adapter reads from the settings; None: there is nothing to publish."""
    if candidate_id is None:
        return {}
    known = next((candidate for candidate in settings.candidates if candidate.id == candidate_id), None)
    about = {"base_model", "license", "derived_from"}
    return {
        "where": place_of(settings),
        "repository": repository_of(settings, workload, candidate_id),
        **settings.hub.model_dump(mode="json", include={"private", "include_prefix"}),
        # Gone from flywheel.yaml since it was approved: it serves all the same.
        "candidate": None if known is None else known.model_dump(mode="json", include=about),
        # The card says until when the decision holds.
        "max_age_days": settings.decision_for(workload).max_age_days,
        "cleaning": settings.cleaning_for(workload).model_dump(mode="json", include={"allow", "entities"}),
    }


def judged(settings: Settings, asset: str, workload: str) -> bool:
    """Whether an evaluation's answers go to the workload's judge: those to validation rows only where the choice to
    fine-tune looks at a judge column."""
    return asset != graph.VALIDATION_EVAL or settings.finetune_for(workload).metric in JUDGE_COLUMNS


def wanted(settings: Settings, asset: str, partition: Partition) -> bool:
    """Whether anything asks for this partition.

    Validation rows are only looked at in finetune mode `if_needed`, and only where the candidate can be fine-tuned; the
    teacher is asked where its endpoint is known; where no candidate is examined nothing is compared; adapters are published
    where a hub is switched on.
    """
    if asset in (graph.COMPARISON, graph.DECISION):
        return bool(settings.candidates_of(partition.workload))
    if asset == graph.PUBLISHED_ADAPTER:
        return settings.hub.enabled and bool(settings.candidates_of(partition.workload))
    if asset == graph.VALIDATION_EVAL:
        candidate = settings.candidate(partition.candidate)
        if candidate.is_remote or not candidate.trainable:
            return False
        return settings.finetune_for(partition.workload).mode is FinetuneMode.IF_NEEDED
    if asset == graph.TEACHER_EVAL:
        return settings.teacher_for(partition.workload).model is not None
    return True


def teacher_candidate(settings: Settings, workload: str) -> Candidate | None:
    """The teacher as somebody to ask, like a candidate; None where no endpoint of it is configured."""
    teacher = settings.teacher_for(workload)
    if teacher.model is None:
        return None
    return Candidate(
        id=TEACHER_ID,
        model=teacher.model,
        model_name=teacher.model_name,
        api_key_env=teacher.api_key_env,
        engine=Engine.OPENAI,
        trainable=False,
    )


def train_only_sources(settings: Settings, workload: str) -> list[str] | None:
    """Sources whose records are never examined on; None means every source but `traffic`."""
    override = settings.workloads.get(workload)
    if override is None or override.train_only_sources is None:
        return None
    return sorted(override.train_only_sources)


def registered_gates(settings: Settings, workload: str) -> tuple[Gate, ...]:
    """The gates that flywheel.yaml registers for a workload; empty: those of its type."""
    return tuple(
        Gate(
            metric=gate.metric or gate.condition,
            limit=0.0 if gate.condition == GateKind.ZERO_TOLERANCE else float(getattr(gate, gate.condition)),
            kind=_GATE_KINDS[gate.condition],
            suite=gate.suite,
            against=Against(gate.against),
        )
        for gate in settings.decision_for(workload).gates
    )


def workload_type(settings: Settings, workload: str) -> WorkloadType | None:
    """The type flywheel.yaml gives a workload; None where its records tell."""
    override = settings.workloads.get(workload)
    return None if override is None or override.workload_type is None else WorkloadType(override.workload_type)


def domain_rules(settings: Settings, workload: str) -> tuple[DomainRule, ...]:
    """How a workload's eval rows are labelled by domain."""
    return tuple(
        DomainRule(rule.domain, rule.tools, tuple(sorted(rule.metadata.items())), rule.text)
        for rule in settings.suites_for(workload).domains
    )


def cleaning_policy(settings: Settings, workload: str) -> CleaningPolicy:
    """How a workload's records are cleaned while they are read."""
    cleaning = settings.cleaning_for(workload)
    return CleaningPolicy(
        scrub=cleaning.scrub,
        allow=cleaning.allow,
        entities=frozenset(cleaning.entities),
        near_duplicates=cleaning.near_duplicates,
        similarity=cleaning.similarity,
    )


def quality_policy(settings: Settings, workload: str) -> QualityPolicy:
    """Which of a workload's records are in no dataset for what they are."""
    cleaning = settings.cleaning_for(workload)
    return QualityPolicy(
        drop_truncated=cleaning.drop_truncated,
        drop_refusals=cleaning.drop_refusals,
        min_feedback=cleaning.min_feedback,
    )


def token_prices(settings: Settings) -> dict[str, TokenPrice]:
    """The price table, by candidate id or teacher model name."""
    return {name: TokenPrice(price.prompt, price.completion, price.cached_prompt) for name, price in settings.prices.items()}


def _prices(settings: Settings) -> Json:
    # A key that is not set stands in no slice: nothing becomes stale because this version knows one more.
    return {name: price.model_dump(mode="json", exclude_none=True) for name, price in settings.prices.items()}


def _label(candidate: Candidate) -> Json:
    return {"id": candidate.id, "derived_from": candidate.derived_from}
