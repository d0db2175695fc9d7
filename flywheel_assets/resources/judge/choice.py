"""Choice: which judge a workload has, which columns it fills, and what of that a result depends on."""

from __future__ import annotations

from flywheel_assets.core.judge import RUBRIC_VERSION, LabelledAnswer, LabelsError, Rubric, columns_of, parse_labels
from flywheel_assets.core.rows import Json, WorkloadType
from flywheel_assets.resources.model_files import sha256_of
from flywheel_assets.resources.model_identity import model_identity, template_hash
from flywheel_assets.resources.processes import KilledFromOutside
from flywheel_assets.settings import Settings

# How a judge is asked and waited for changes no verdict.
_WITH_MEANING = {
    "model",
    "model_name",
    "candidate",
    "pairwise",
    "similarity_threshold",
    "max_unparsable_share",
    "max_tokens",
}


class JudgeError(Exception):
    """A judge cannot be used, or was lost; the message says which, why and what to do."""


class JudgeKilled(JudgeError, KilledFromOutside):
    """The model server of a judge on this machine is gone in the middle of its work."""


def judge_columns(settings: Settings, workload: str, workload_type: WorkloadType) -> tuple[Rubric, ...]:
    """The judge columns of a workload, in their order; empty where it has no judge or needs none."""
    judge = settings.judge_for(workload)
    if not judge.is_configured:
        return ()
    judged = settings.evaluation_for(workload).tool_eval_type == "judge"
    return columns_of(workload_type, tool_calls=judged, pairwise=judge.pairwise)


def judge_slice(settings: Settings, workload: str) -> Json | None:
    """What an evaluation of a workload reads of its judge, JSON-ready; None where it has none.

    Its identity, the rubrics' version, the hash of the labels, and the settings that change a verdict or a check.
    """
    judge = settings.judge_for(workload)
    if not judge.is_configured:
        return None
    slice_: Json = {
        **judge.model_dump(mode="json", include=_WITH_MEANING),
        "rubrics": RUBRIC_VERSION,
        "tool_calls": settings.evaluation_for(workload).tool_eval_type,
        "labels": None,
    }
    if judge.candidate is not None:
        candidate = settings.candidate(judge.candidate)
        slice_["weights"] = [
            model_identity(settings, candidate),
            template_hash(settings, candidate),
            candidate.engine,
            candidate.context_length,
        ]
    if judge.labels is not None:
        path = settings.resolve(judge.labels)
        slice_["labels"] = sha256_of(path) if path.is_file() else "missing"
    return slice_


def read_labels(settings: Settings, workload: str) -> list[LabelledAnswer]:
    """The labelled answers that calibrate a workload's judge. JudgeError where the file is missing or has a fault."""
    name = settings.judge_for(workload).labels
    if name is None:
        return []
    path = settings.resolve(name)
    try:
        with path.open(encoding="utf-8") as lines:
            return parse_labels(lines, origin=str(path), workload=workload)
    except OSError as error:
        raise JudgeError(f"judge.labels: {path} cannot be read ({error.strerror}). Mend the path, or take it out.") from None
    except UnicodeDecodeError:
        raise JudgeError(f"judge.labels: {path} is not UTF-8 text. Save it as UTF-8.") from None
    except LabelsError as error:
        raise JudgeError(f"judge.labels: {error}") from None
