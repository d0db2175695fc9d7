"""The keys of `nemo` and `nims`: NeMo Microservices as the platform, and the NIMs that are its candidates.

`nims` has the keys of the reference workflow's file, so that a list can be carried over as it is. What does not belong
here: how a NIM becomes a candidate (`schema`), and secrets (the environment holds them, by the names given here).
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from flywheel_assets.settings.section import Section

_NOT_IN_A_SLUG = re.compile(r"[^a-z0-9]+")
# Entity Store and Kubernetes names.
Namespace = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=63)]


class CustomizerConfig(Section):
    """How the Customizer trains a NIM's model; the names are those of the reference workflow."""

    target: str = Field(description="Customization target, such as `meta/llama-3.2-1b-instruct@2.0`.")
    gpus: int = Field(1, ge=1, description="GPUs a node of one training.")
    num_nodes: int = Field(1, ge=1, description="Nodes of one training.")
    tensor_parallel_size: int = Field(1, ge=1, description="GPUs that share a layer.")
    micro_batch_size: int = Field(1, ge=1, description="Rows a GPU holds at once.")
    data_parallel_size: int | None = Field(None, ge=1, description="Copies of the model; null lets the Customizer say.")
    use_sequence_parallel: bool = Field(False, description="Spread sequences over GPUs.")
    max_seq_length: int = Field(4096, ge=64, description="Tokens; the Customizer cuts longer training rows off.")
    training_precision: Literal["int8", "bf16", "fp16", "fp32", "fp8-mixed", "bf16-mixed"] = Field(
        "bf16-mixed", description="Precision of the training."
    )


class NimImage(Section):
    """Which container serves a model, and what it needs."""

    model_name: str = Field(min_length=1, description="The model as NIM names it, such as `meta/llama-3.2-1b-instruct`.")
    tag: str | None = Field(None, description="Tag of the image; null: the NIM runs already, and is never started or ended.")
    gpus: int | None = Field(None, ge=0, description="GPUs of one deployment; its weight in `nemo.gpu_budget`.")
    pvc_size: str | None = Field(None, description="Volume for the weights, such as `25Gi`.")
    registry_base: str = Field("nvcr.io/nim", description="Registry and project of the image; the model's name is appended.")
    additional_envs: dict[str, str] = Field(
        default_factory=lambda: {"NIM_GUIDED_DECODING_BACKEND": "outlines"},
        description="Environment of the container. The default is the reference workflow's.",
    )

    @property
    def deployment_name(self) -> str:
        """The name of its deployment: model names with slashes are not accepted as one."""
        return self.model_name.replace("/", "-")

    @property
    def is_deployed_here(self) -> bool:
        """Whether the flywheel starts and ends it."""
        return self.tag is not None

    @model_validator(mode="after")
    def _a_tag_needs_gpus(self) -> NimImage:
        if self.tag is not None and self.gpus is None:
            raise ValueError(f"{self.model_name}: a NIM with a `tag` is deployed, and needs `gpus`")
        return self


class Nim(NimImage):
    """One candidate on the `nemo` platform: it becomes one with `engine: nim`, and an id made from the model's name."""

    model_type: Literal["llm"] = Field("llm", description="What the reference workflow calls it; `llm` is what is examined.")
    context_length: int = Field(4096, ge=256, description="Tokens of prompt and answer together.")
    customization_enabled: bool = Field(False, description="Whether the Customizer trains it.")
    customizer_configs: CustomizerConfig | None = Field(None, description="How; needed where it is trained.")
    id: str | None = Field(None, description="Candidate id; null makes one from the model's name.")
    description: str | None = Field(None, description="A line for people; shown beside the id.")
    workloads: tuple[str, ...] | None = Field(None, description="Workloads it is examined on; null: every one.")
    training: dict[str, Any] = Field(default_factory=dict, description="Overrides of `training` for this candidate.")

    @model_validator(mode="after")
    def _training_needs_a_target(self) -> Nim:
        if self.customization_enabled and self.customizer_configs is None:
            raise ValueError(
                f"{self.model_name}: `customization_enabled` needs `customizer_configs` with a `target`; "
                "GET /v1/customization/targets lists them"
            )
        return self

    @property
    def candidate_id(self) -> str:
        """The slug that names it in every report, path and partition."""
        return self.id or _NOT_IN_A_SLUG.sub("-", self.model_name.lower()).strip("-")[:63].strip("-")

    def as_candidate(self) -> dict[str, Any]:
        """The candidate it is, as flywheel.yaml would write it."""
        length = {} if self.customizer_configs is None else {"max_seq_length": self.customizer_configs.max_seq_length}
        return {
            "id": self.candidate_id,
            "model": self.model_name,
            "engine": "nim",
            "description": self.description,
            "gpus": self.gpus or 0,
            "context_length": self.context_length,
            "trainable": self.customization_enabled,
            "workloads": self.workloads,
            "training": {**length, **self.training},
            "nim": self,
        }


class NemoJudge(Section):
    """The judge of tool calls, where `evaluation.tool_eval_type` is `judge`: somebody else's endpoint, or a NIM of ours."""

    type: Literal["remote", "local"] = Field(
        "remote", description="remote: nothing to wait for. local: deployed, waited for."
    )
    url: str | None = Field(None, description="remote: its chat-completions URL.")
    model_name: str = Field(description="The judge's model.")
    api_key_env: str | None = Field(None, description="remote: NAME of the environment variable that holds its key.")
    tag: str | None = Field(None, description="local: tag of its image.")
    gpus: int | None = Field(None, ge=0, description="local: GPUs of its deployment.")
    pvc_size: str | None = Field(None, description="local: volume for the weights.")
    context_length: int | None = Field(None, ge=256, description="Carried over from the reference workflow; not read.")

    @model_validator(mode="after")
    def _complete(self) -> NemoJudge:
        if self.type == "remote" and not self.url:
            raise ValueError("a remote judge needs `url`")
        return self

    @property
    def nim(self) -> NimImage:
        """A local judge as the NIM it is."""
        return NimImage(model_name=self.model_name, tag=self.tag, gpus=self.gpus, pvc_size=self.pvc_size)


class NemoSettings(Section):
    """NeMo Microservices (API v1), read where `platform: nemo`. docs/nemo.md says what of it ever ran."""

    base_url: str = Field("http://nemo.test", description="Entity Store, Customizer, Evaluator, Deployment Management.")
    datastore_url: str = Field("http://data-store.test", description="Data Store.")
    nim_url: str = Field("http://nim.test", description="NIM proxy.")
    namespace: Namespace = Field("dfwbp", description="Everything made there is made in it; it is created where absent.")
    api_key_env: str | None = Field(None, description="NAME of the variable with a bearer token; null: none is sent.")
    datastore_token_env: str | None = Field(None, description="NAME of the variable with the Data Store's token.")
    evaluation: Literal["evaluator", "direct"] = Field(
        "evaluator",
        description="evaluator: jobs of the NeMo Evaluator, whose rows are scored here too. direct: the NIM is asked from "
        "here, greedily, with latency and the prediction cache.",
    )
    gpu_budget: int = Field(8, ge=0, description="Sum of `gpus` of the NIMs that may be deployed at once.")
    parallel_runs: int = Field(12, ge=1, description="Dagster runs `flywheel run` keeps in flight.")
    request_timeout_s: float = Field(60, gt=0, le=600, description="Seconds one request may take.")
    retry_s: float = Field(120, ge=0, description="Seconds for which 429, 5xx and lost connections are tried again.")
    poll_longest_s: float = Field(15, ge=1, description="Longest pause between two looks at a job; the first is a second.")
    deploy_timeout_minutes: float = Field(60, gt=0, description="A deployment that is not ready by then has failed.")
    sync_timeout_minutes: float = Field(
        60, gt=0, description="A model that GET /v1/models does not list by then has failed."
    )
    stall_timeout_minutes: float = Field(60, gt=0, description="A job without progress for so long has failed.")
    resources_timeout_minutes: float = Field(
        10, ge=0, description="A training that reports NotEnoughResources for so long has failed."
    )
    adopt_minutes: float = Field(
        10, ge=0, description="What a killed run left behind waits so long for a new run, before the janitor ends it."
    )
    judge: NemoJudge | None = Field(None, description="The judge, as `llm_judge_config` of the reference workflow.")

    @field_validator("base_url", "datastore_url", "nim_url")
    @classmethod
    def _without_slash(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("a URL starts with http:// or https://")
        return value.rstrip("/").removesuffix("/v1")
