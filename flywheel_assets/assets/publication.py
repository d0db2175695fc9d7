"""Publication: the adapter that a person approved, with its card, on a hub or in a folder.

What belongs here: what there is to publish, and what a person sees of it. What does not: where it goes (`resources.hub`) and
what the card says (`core.model_card`).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import orjson

from flywheel_assets.assets.decision import DECISION_FILE, read_comparison
from flywheel_assets.assets.metadata import bullet_table, page
from flywheel_assets.assets.publishing import CheckOutcome, Events, Outcome, Refusal, Work, publish
from flywheel_assets.assets.specs import check_spec, spec
from flywheel_assets.assets.training import ADAPTER_DIR, ADAPTER_GGUF, skipped
from flywheel_assets.core import graph
from flywheel_assets.core.decisions import Decision
from flywheel_assets.core.graph import Partition
from flywheel_assets.core.model_card import CardFacts, model_card
from flywheel_assets.core.payload import CARD, GGUF, PREFIX, PUBLISHED
from flywheel_assets.core.prefix import read_prefix
from flywheel_assets.core.promotion import TEACHER, Act, serving
from flywheel_assets.core.rows import Json, Variant
from flywheel_assets.resources.artifacts import Artifact, ArtifactMissing, Made
from flywheel_assets.resources.expiry import expires_at
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.hub import Payload, PayloadRefused, Placed, collect, open_target
from flywheel_assets.resources.inputs import cleaning_policy
from flywheel_assets.resources.provenance import ancestor
from flywheel_assets.seals import require_untouched
from flywheel_assets.settings import Settings

# The files made for the publication; the adapter's own are named, and stay where they are.
MADE_DIR = "made"


def publication_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """`published_adapter`."""

    @dg.multi_asset(
        specs=[
            spec(
                settings,
                graph.PUBLISHED_ADAPTER,
                description="The approved adapter on the hub (or in a folder), with a model card written from the evidence, "
                "private, under a tag that is never moved. Skipped while nobody approved a fine-tuned model.",
                kinds=["huggingface"],
            )
        ],
        check_specs=[
            check_spec(
                "clean",
                graph.PUBLISHED_ADAPTER,
                "No personal data, secret or folder of this machine stands in any text that leaves. If it fails: the "
                "message names the file; what is nobody's goes into `cleaning.allow`.",
                settings,
            ),
            check_spec(
                "identical",
                graph.PUBLISHED_ADAPTER,
                "What the hub holds under the pinned revision has the hashes of the files here. If it fails: materialize "
                "this asset again.",
                settings,
            ),
        ],
    )
    def published_adapter(context: dg.AssetExecutionContext, flywheel: dg.ResourceParam[Flywheel]) -> Events:
        yield from publish(context, flywheel, [graph.PUBLISHED_ADAPTER], _publish, {graph.PUBLISHED_ADAPTER: _describe})

    return [published_adapter]


def published_for(flywheel: Flywheel, act: Act) -> Artifact | None:
    """The publication of what an approval is about; None while there is none."""
    found = flywheel.artifacts.current(graph.PUBLISHED_ADAPTER, Partition(act.workload))
    if found is None or found.state != "ok":
        return None
    return found if found.summary["decision"] == act.decision else None


@dataclass(frozen=True, slots=True)
class _Approved:
    """What a person approved: the act, the decision it is about, the adapter, and what is read of the settings for it."""

    act: Act
    decision: Artifact
    decided: Decision
    adapter: Artifact
    read: Json

    @property
    def repository(self) -> str:
        return str(self.read["repository"])


def _publish(work: Work) -> Mapping[str, Outcome]:
    flywheel, workload = work.flywheel, work.partition.workload
    act = serving(flywheel.promotions.acts(workload))
    if (reason := _nothing_to_publish(flywheel.settings, act)) is not None:
        return skipped(work, graph.PUBLISHED_ADAPTER, reason)
    assert act is not None
    approved = _approved(flywheel, act)
    require_untouched(work.context.instance, [approved.decision, approved.adapter])
    if (there := approved.adapter.summary.get("remote_model")) is not None:
        reason = f"the adapter lies in the cluster, as {there}: there are no weights here"
        return skipped(work, graph.PUBLISHED_ADAPTER, reason)
    payload = _payload(work, approved)
    size = sum(file.size for file in payload.files.values()) / 1e6
    work.context.log.info(f"{approved.repository}: {len(payload.files)} files, {size:.1f} MB in all")
    placed = open_target(flywheel.settings).publish(
        approved.repository,
        f"decision-{act.decision}",
        payload,
        f"{act.candidate}, approved by decision {act.decision}",
    )
    work.context.log.info(f"{len(placed.sent)} files were not there yet; pinned as {placed.tag} ({placed.revision})")
    return {graph.PUBLISHED_ADAPTER: _outcome(act, payload, placed)}


def _nothing_to_publish(settings: Settings, act: Act | None) -> str | None:
    if not settings.hub.enabled:
        return "no hub is switched on (`hub.enabled` in flywheel.yaml)"
    if act is None:
        return f"{TEACHER} serves this workload: nobody approved a small model"
    if act.variant != Variant.CUSTOMIZED:
        return f"what serves is {act.model}, which has no adapter"
    return None


def _approved(flywheel: Flywheel, act: Act) -> _Approved:
    """Raises ArtifactMissing where something of it is gone."""
    if act.adapter_version is None:
        raise ArtifactMissing(f"the approval of {act.model} names no adapter. Approve the current decision.")
    partition = Partition(act.workload)
    decision = flywheel.artifacts.version(graph.DECISION, partition, act.decision)
    return _Approved(
        act,
        decision,
        Decision.from_json(orjson.loads((decision.path / DECISION_FILE).read_bytes())),
        flywheel.artifacts.version(graph.ADAPTER, Partition(act.workload, act.candidate), act.adapter_version),
        flywheel.settings_slice(graph.PUBLISHED_ADAPTER, partition),
    )


def _payload(work: Work, approved: _Approved) -> Payload:
    """Everything that goes, looked through. Refusal where something must not."""
    flywheel, adapter = work.flywheel, approved.adapter
    made = work.draft(graph.PUBLISHED_ADAPTER).path / MADE_DIR
    made.mkdir()
    files = {path.name: path for path in (adapter.path / ADAPTER_DIR).iterdir() if path.name in PUBLISHED}
    if (gguf := adapter.path / ADAPTER_GGUF).is_file():
        files[GGUF] = gguf
    if flywheel.settings.hub.include_prefix and (prefix := _prefix(flywheel, approved)) is not None:
        files[PREFIX] = made / PREFIX
        # The messages alone: the rows they come from have ids.
        files[PREFIX].write_bytes(orjson.dumps({"messages": read_prefix(prefix.path)}, option=orjson.OPT_INDENT_2))
    files[CARD] = made / CARD
    files[CARD].write_text(model_card(_facts(flywheel, approved, sorted(files))), encoding="utf-8")
    policy = cleaning_policy(flywheel.settings, approved.act.workload)
    try:
        return collect(files, policy, _private_paths(flywheel.settings))
    except PayloadRefused as error:
        raise Refusal(
            f"nothing was published: {error}. Look at the files in {adapter.path} and at `hub.include_prefix`; a value that "
            "is nobody's may stand in `cleaning.allow`.",
            check=(graph.PUBLISHED_ADAPTER, "clean"),
        ) from error


def _facts(flywheel: Flywheel, approved: _Approved, files: list[str]) -> CardFacts:
    decision, adapter = approved.decision, approved.adapter
    compared = ancestor(flywheel.artifacts, decision, graph.COMPARISON)
    if compared is None:
        raise ArtifactMissing(f"the comparison behind decision {decision.version} is gone, and with it the card's evidence.")
    about: Json = approved.read["candidate"] or {}
    comparison = read_comparison(compared)
    return CardFacts(
        repository=approved.repository,
        decision=approved.decided,
        comparison=comparison,
        base_model=about.get("base_model"),
        license=about.get("license"),
        derived_from=about.get("derived_from"),
        training=adapter.summary,
        versions={
            "decision": decision.version,
            "comparison": compared.version,
            "eval rows": comparison.dataset_version,
            "training rows": str(adapter.summary["trained_on"]),
            "adapter": adapter.version,
        },
        approved_on=approved.act.time[:10],
        expires=expires_at(flywheel, decision)[:10],
        files=files,
    )


def _prefix(flywheel: Flywheel, approved: _Approved) -> Artifact | None:
    """The prefix that stood beside the winner in its comparison; None where that variant was not evaluated."""
    act = approved.act
    for arm in approved.decided.evidence["arms"]:
        if (arm["candidate"], arm["variant"]) == (act.candidate, Variant.PREFIXED):
            partition = Partition(act.workload, act.candidate)
            evaluated = flywheel.artifacts.version(graph.EVALS[Variant.PREFIXED], partition, arm["version"])
            return ancestor(flywheel.artifacts, evaluated, graph.PREFIX)
    return None


def _private_paths(settings: Settings) -> dict[str, str]:
    paths = {str(settings.home): "FLYWHEEL_HOME", str(settings.root): "where flywheel.yaml lies", str(Path.home()): "a home"}
    # The root of a file system stands in every address.
    return {path: what for path, what in paths.items() if Path(path).is_absolute() and path != "/"}


def _outcome(act: Act, payload: Payload, placed: Placed) -> Outcome:
    if wrong := placed.differing(payload):
        # A refusal and no published version: that one would be found again and again, and never be sent anew.
        raise Refusal(
            f"{placed.url} lacks {', '.join(wrong)}, or holds something else there. Materialize this asset again.",
            check=(graph.PUBLISHED_ADAPTER, "identical"),
        )
    clean = CheckOutcome("clean", True, "Nothing personal, secret or of this machine was found in the texts that left.")
    identical = CheckOutcome("identical", True, f"All {len(payload.files)} files lie there with the same hashes.")
    summary: Json = {
        "repository": placed.repository,
        "revision": placed.revision,
        "tag": placed.tag,
        "url": placed.url,
        "decision": act.decision,
        "candidate": act.candidate,
        "adapter_version": act.adapter_version,
        "sent": list(placed.sent),
        "files": {name: {"bytes": file.size, "sha256": file.sha256} for name, file in payload.files.items()},
    }
    meaning = hashlib.sha256(f"{placed.url}\n{placed.revision}\n{payload.digest}".encode()).hexdigest()[:32]
    return Outcome(Made(meaning, summary), [clean, identical])


def _describe(artifact: Artifact) -> Mapping[str, Any]:
    if artifact.state == "skipped":
        return {}
    summary = artifact.summary
    address = dg.MetadataValue.url if "://" in summary["url"] else dg.MetadataValue.path
    rows = [
        [name, file["bytes"], file["sha256"][:16], "sent" if name in summary["sent"] else "was there"]
        for name, file in summary["files"].items()
    ]
    return {
        "address": address(summary["url"]),
        "repository": summary["repository"],
        "revision": summary["revision"],
        "tag": summary["tag"],
        "approved decision": summary["decision"],
        "files": bullet_table(["file", "bytes", "sha256", "this time"], rows),
        "card": page((artifact.path / MADE_DIR / CARD).read_text(encoding="utf-8")),
    }
