"""The keys of flywheel.yaml: their types, defaults, accepted values and meaning.

What belongs here: one field a key, with its description (docs/settings.md is made from them). What does not: reading the
file (`loading`).
"""

from __future__ import annotations

from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError, ValidationInfo, field_validator, model_validator

from flywheel_assets.settings.alerts import AlertSettings
from flywheel_assets.settings.automation import AutomationSettings
from flywheel_assets.settings.cleaning import CleaningSettings
from flywheel_assets.settings.cluster import check_budget
from flywheel_assets.settings.decision import DecisionSettings, PromotionSettings
from flywheel_assets.settings.elasticsearch import ElasticsearchSettings
from flywheel_assets.settings.evaluation import EvaluationSettings
from flywheel_assets.settings.hub import HubSettings
from flywheel_assets.settings.judge import JudgeSettings
from flywheel_assets.settings.langfuse import LangfuseSettings
from flywheel_assets.settings.nemo import NemoSettings, Nim
from flywheel_assets.settings.prices import Price
from flywheel_assets.settings.section import Section
from flywheel_assets.settings.split import SplitSettings
from flywheel_assets.settings.suites import SuiteSettings
from flywheel_assets.settings.teacher import TeacherSettings
from flywheel_assets.settings.telemetry import TelemetrySettings
from flywheel_assets.settings.training import FinetuneSettings, TrainingSettings

SLUG_PATTERN = r"^[a-z0-9]+([._-][a-z0-9]+)*$"
Slug = Annotated[str, StringConstraints(pattern=SLUG_PATTERN, max_length=63)]

SETTINGS_FILE = "flywheel.yaml"


class SettingsError(Exception):
    """flywheel.yaml cannot be used; the message names the file, the key, what was found and what is accepted."""


class Engine(StrEnum):
    """What serves a candidate."""

    XLLAMACPP = "xllamacpp"
    OPENAI = "openai"
    NIM = "nim"


class PrefixSettings(Section):
    """The context-engineering prefix; its first form is a fixed few-shot taken from training rows."""

    shots: int = Field(2, ge=1, le=16, description="Training rows shown before each request.")
    max_chars: int = Field(6000, ge=200, description="Longest prefix, in characters of the examples' messages.")


# Blocks that a workload, and `training` a candidate, may override key by key.
OVERRIDABLE: dict[str, type[Section]] = {
    "cleaning": CleaningSettings,
    "automation": AutomationSettings,
    "split": SplitSettings,
    "training": TrainingSettings,
    "finetune": FinetuneSettings,
    "evaluation": EvaluationSettings,
    "prefix": PrefixSettings,
    "suites": SuiteSettings,
    "teacher": TeacherSettings,
    "judge": JudgeSettings,
    "decision": DecisionSettings,
}


class Candidate(Section):
    """A small model that may take over a workload."""

    id: Slug = Field(description="The candidate's name in every report, path and partition; renaming it makes another one.")
    model: str = Field(
        description="A GGUF file, a local folder that holds exactly one, or the URL of an OpenAI-compatible endpoint."
    )
    model_name: str | None = Field(None, description="The name an endpoint knows the model by; null asks `/v1/models`.")
    engine: Engine = Field(
        Engine.XLLAMACPP,
        description="What serves it: llama.cpp on this machine, an endpoint elsewhere, or a NIM (made by `nims`).",
    )
    api_key_env: str | None = Field(None, description="NAME of the environment variable that holds the endpoint's key.")
    chat_template: str | None = Field(
        None, description="A template file, or the name of a built-in one (`chatml-tools`); null uses the model's own."
    )
    description: str | None = Field(None, description="A line for people; shown beside the id.")
    derived_from: str | None = Field(
        None, description="Set where the model was derived from another; shown in every report."
    )
    base_model: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][\w.-]*/[\w.-]+$",
        description="The model's id on a hub, such as `owner/name`; what a published adapter names as its base.",
    )
    license: str | None = Field(
        None,
        pattern=r"^[a-z0-9][a-z0-9.-]*$",
        description="The model's licence as a hub writes it, such as `apache-2.0`; a published adapter repeats it, "
        "null says `unknown`.",
    )
    gpus: int = Field(0, ge=0, description="Weight in the GPU budget; remote endpoints weigh 0.")
    context_length: int = Field(
        4096, ge=256, description="Tokens of prompt and answer together that the server makes room for."
    )
    trainable: bool = Field(True, description="false: never fine-tuned; its customized variant is skipped.")
    workloads: tuple[Slug, ...] | None = Field(None, description="null: every workload.")
    training: dict[str, Any] = Field(default_factory=dict, description="Overrides of `training` for this candidate.")
    nim: Nim | None = Field(None, exclude=True)

    @property
    def is_remote(self) -> bool:
        """Whether somebody else runs the server."""
        return self.engine is Engine.OPENAI

    @field_validator("training")
    @classmethod
    def _known_training_keys(cls, value: dict[str, Any]) -> dict[str, Any]:
        TrainingSettings.model_validate(value)
        return value

    @model_validator(mode="after")
    def _endpoint_has_a_url(self) -> Candidate:
        has_url = self.model.startswith(("http://", "https://"))
        if self.is_remote and not has_url:
            raise ValueError("engine 'openai' needs a `model` that starts with http:// or https://")
        if has_url and not self.is_remote:
            raise ValueError("a `model` that is a URL needs `engine: openai`")
        if self.engine is Engine.NIM and self.nim is None:
            raise ValueError("a NIM stands under `nims`, which makes the candidate; take this entry out")
        return self


class WorkloadSettings(Section):
    """Overrides for one workload; each block is merged over the top-level block of the same name."""

    workload_type: Literal["tool_calling", "structured", "generic"] | None = Field(
        None, description="What the calls are, which selects the metrics; null: the records tell (docs/metrics.md)."
    )
    cleaning: dict[str, Any] = Field(default_factory=dict, description="Keys of `cleaning` that differ for this workload.")
    automation: dict[str, Any] = Field(
        default_factory=dict,
        description="Keys of `automation` that differ for this workload (`min_new_records` and `cooldown_minutes`).",
    )
    split: dict[str, Any] = Field(default_factory=dict, description="Keys of `split` that differ for this workload.")
    training: dict[str, Any] = Field(default_factory=dict, description="Keys of `training` that differ for this workload.")
    finetune: dict[str, Any] = Field(default_factory=dict, description="Keys of `finetune` that differ for this workload.")
    evaluation: dict[str, Any] = Field(
        default_factory=dict, description="Keys of `evaluation` that differ for this workload."
    )
    prefix: dict[str, Any] = Field(default_factory=dict, description="Keys of `prefix` that differ for this workload.")
    suites: dict[str, Any] = Field(default_factory=dict, description="Keys of `suites` that differ for this workload.")
    teacher: dict[str, Any] = Field(default_factory=dict, description="Keys of `teacher` that differ for this workload.")
    judge: dict[str, Any] = Field(default_factory=dict, description="Keys of `judge` that differ for this workload.")
    decision: dict[str, Any] = Field(default_factory=dict, description="Keys of `decision` that differ for this workload.")
    train_only_sources: tuple[str, ...] | None = Field(
        None, description="Sources never examined on; null: every source but `traffic`; [] lets all be examined on."
    )

    # By field, so that a fault is reported under the block it stands in.
    @field_validator(*OVERRIDABLE)
    @classmethod
    def _known_keys(cls, value: dict[str, Any], field: ValidationInfo) -> dict[str, Any]:
        OVERRIDABLE[str(field.field_name)].model_validate(value)
        return value


_WHO_JUDGES = ("model", "model_name", "api_key_env", "candidate")


class LocalSettings(Section):
    """What this machine may spend on the `local` platform."""

    gpu_budget: int = Field(1, ge=0, description="Sum of `gpus` of the local models that may be loaded at once.")
    parallel_runs: int = Field(2, ge=1, description="Dagster runs `flywheel run` keeps in flight.")
    threads: int | None = Field(
        None,
        ge=1,
        description="CPU threads of a model server or training; null: every core.",
    )
    max_record_bytes: int = Field(4_000_000, ge=1000, description="A longer log line is rejected as oversize.")


class Settings(Section):
    """The whole of flywheel.yaml, plus where it came from."""

    version: Literal[1] = Field(1, description="Version of this file's form.")
    platform: Literal["local", "nemo"] = Field(
        "local", description="Where training, serving and evaluation run: this machine, or NeMo Microservices."
    )
    trace_store: Literal["local", "elasticsearch"] = Field(
        "local", description="Where records lie: a file under FLYWHEEL_HOME, or Elasticsearch."
    )
    candidates: tuple[Candidate, ...] = Field(
        min_length=1, description="The small models that are examined. Each entry of `nims` adds one."
    )
    nims: tuple[Nim, ...] = Field((), description="NIMs that are candidates, with the reference workflow's keys.")
    nemo: NemoSettings = NemoSettings()
    elasticsearch: ElasticsearchSettings = ElasticsearchSettings()
    langfuse: LangfuseSettings = LangfuseSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    sources: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Options of sources that other packages bring, by name (docs/extending.md)."
    )
    cleaning: CleaningSettings = CleaningSettings()
    automation: AutomationSettings = AutomationSettings()
    alerts: AlertSettings = AlertSettings()
    split: SplitSettings = SplitSettings()
    training: TrainingSettings = TrainingSettings()
    finetune: FinetuneSettings = FinetuneSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    prefix: PrefixSettings = PrefixSettings()
    suites: SuiteSettings = SuiteSettings()
    teacher: TeacherSettings = TeacherSettings()
    judge: JudgeSettings = JudgeSettings()
    decision: DecisionSettings = DecisionSettings()
    promotion: PromotionSettings = PromotionSettings()
    hub: HubSettings = HubSettings()
    prices: dict[str, Price] = Field(
        default_factory=dict,
        description="Price table for cost per 1,000 requests, by candidate id, teacher model name or judge's name "
        "(docs/metrics.md).",
    )
    local: LocalSettings = LocalSettings()
    owners: tuple[str, ...] = Field(("team:ml-platform",), description="Dagster owners: an e-mail address or team:name.")
    workloads: dict[Slug, WorkloadSettings] = Field(default_factory=dict, description="Overrides by workload slug.")

    home: Path = Field(Path(".flywheel"), exclude=True)
    root: Path = Field(Path(), exclude=True)
    file: Path | None = Field(None, exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _nims_are_candidates(cls, content: Any) -> Any:
        if not isinstance(content, dict) or not isinstance(content.get("nims"), list | tuple):
            return content
        made = []
        for entry in content["nims"]:
            # A faulty entry is told under its own key, when `nims` itself is validated.
            with suppress(ValidationError):
                made.append(Nim.model_validate(entry).as_candidate())
        return {**content, "candidates": [*(content.get("candidates") or ()), *made]}

    @model_validator(mode="after")
    def _engines_fit_the_platform(self) -> Settings:
        for candidate in self.candidates:
            if (candidate.engine is Engine.NIM) != (self.platform == "nemo") and not candidate.is_remote:
                raise ValueError(
                    f"candidates: '{candidate.id}' has engine '{candidate.engine}', which platform '{self.platform}' does "
                    "not run; NIMs and endpoints run on `nemo`, GGUF files, folders and endpoints on `local`"
                )
        return self

    @model_validator(mode="after")
    def _candidates_are_distinct(self) -> Settings:
        seen: set[str] = set()
        for candidate in self.candidates:
            if candidate.id in seen:
                raise ValueError(f"candidates: the id '{candidate.id}' is used twice")
            seen.add(candidate.id)
        return self

    @model_validator(mode="after")
    def _judges_are_there(self) -> Settings:
        # The empty slug is no workload's: what holds for all that are not named.
        for slug in ("", *self.workloads):
            where = f"workloads.{slug}." if slug else ""
            judge, evaluation = self.judge_for(slug), self.evaluation_for(slug)
            known = [candidate.id for candidate in self.candidates]
            if judge.candidate is not None and judge.candidate not in known:
                raise ValueError(
                    f"{where}judge.candidate: '{judge.candidate}' is none of the candidates. Known: {', '.join(known)}; for "
                    "a URL use `model`"
                )
            judged_there = self.platform == "nemo" and self.nemo.judge is not None
            if evaluation.tool_eval_type == "judge" and not (judge.is_configured or judged_there):
                raise ValueError(
                    f"{where}evaluation.tool_eval_type: 'judge' needs a judge. Name a `model` (URL) or `candidate` under "
                    f"{where}judge (docs/judge.md), or write 'metric'"
                )
        return self

    @model_validator(mode="after")
    def _judges_and_nims_fit_the_cluster(self) -> Settings:
        check_budget(self)
        return self

    def candidate(self, candidate_id: str) -> Candidate:
        """The candidate of that id; SettingsError names the known ones."""
        for candidate in self.candidates:
            if candidate.id == candidate_id:
                return candidate
        known = ", ".join(c.id for c in self.candidates)
        raise SettingsError(f"unknown candidate '{candidate_id}'. Known in {SETTINGS_FILE}: {known}.")

    def candidates_of(self, workload: str) -> tuple[Candidate, ...]:
        """The candidates that are examined on a workload."""
        return tuple(c for c in self.candidates if c.workloads is None or workload in c.workloads)

    def cleaning_for(self, workload: str) -> CleaningSettings:
        """`cleaning`, with the workload's overrides."""
        return CleaningSettings(**self._merged("cleaning", workload))

    def automation_for(self, workload: str) -> AutomationSettings:
        """`automation`, with the workload's overrides."""
        return AutomationSettings(**self._merged("automation", workload))

    def split_for(self, workload: str) -> SplitSettings:
        """`split`, with the workload's overrides."""
        return SplitSettings(**self._merged("split", workload))

    def training_for(self, workload: str, candidate_id: str) -> TrainingSettings:
        """`training`, with the workload's and then the candidate's overrides."""
        return TrainingSettings(**{**self._merged("training", workload), **self.candidate(candidate_id).training})

    def finetune_for(self, workload: str) -> FinetuneSettings:
        """`finetune`, with the workload's overrides."""
        return FinetuneSettings(**self._merged("finetune", workload))

    def evaluation_for(self, workload: str) -> EvaluationSettings:
        """`evaluation`, with the workload's overrides."""
        return EvaluationSettings(**self._merged("evaluation", workload))

    def prefix_for(self, workload: str) -> PrefixSettings:
        """`prefix`, with the workload's overrides."""
        return PrefixSettings(**self._merged("prefix", workload))

    def suites_for(self, workload: str) -> SuiteSettings:
        """`suites`, with the workload's overrides."""
        return SuiteSettings(**self._merged("suites", workload))

    def teacher_for(self, workload: str) -> TeacherSettings:
        """`teacher`, with the workload's overrides."""
        return TeacherSettings(**self._merged("teacher", workload))

    def judge_for(self, workload: str) -> JudgeSettings:
        """`judge`, with the workload's overrides; one that names another judge does not inherit who judges elsewhere."""
        base = self.judge.model_dump(exclude_unset=True)
        override = self.workloads.get(workload)
        changed = override.judge if override else {}
        if changed.keys() & {"model", "candidate"}:
            base = {key: value for key, value in base.items() if key not in _WHO_JUDGES}
        return JudgeSettings(**{**base, **changed})

    def decision_for(self, workload: str) -> DecisionSettings:
        """`decision`, with the workload's overrides."""
        return DecisionSettings(**self._merged("decision", workload))

    def _merged(self, section: str, workload: str) -> dict[str, Any]:
        base: dict[str, Any] = getattr(self, section).model_dump(exclude_unset=True)
        override = self.workloads.get(workload)
        return {**base, **(getattr(override, section) if override else {})}

    def resolve(self, path: str) -> Path:
        """A path of flywheel.yaml: absolute, under FLYWHEEL_HOME (`$FLYWHEEL_HOME/...`), or relative to the file."""
        if path.startswith("$FLYWHEEL_HOME"):
            return self.home / path.removeprefix("$FLYWHEEL_HOME").lstrip("/")
        return (self.root / Path(path).expanduser()).resolve()
