"""The keys of `hub`: where adapters that a person approved are published.

What does not belong here: the hub's address and key, which come from the environment (HF_ENDPOINT, HF_TOKEN).
"""

from __future__ import annotations

import re
from string import Formatter

from pydantic import Field, model_validator

from flywheel_assets.settings.section import Section

_NAMESPACE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_IN_A_NAME = re.compile(r"[A-Za-z0-9._-]*")
_PLACES = frozenset({"workload", "candidate"})


class HubSettings(Section):
    """Where approved adapters are published (docs/hub.md): a hub, whose address and key come from the environment
    (HF_ENDPOINT, HF_TOKEN), or a local folder."""

    enabled: bool = Field(False, description="Whether the adapter that a person approved is published.")
    namespace: str | None = Field(None, description="The user or organization on the hub that repositories are made under.")
    folder: str | None = Field(None, description="A local folder to publish into; set it, and no hub is asked.")
    name: str = Field(
        "flywheel-{workload}-{candidate}",
        description="A repository's name; `{workload}` must stand in it, `{candidate}` may.",
    )
    private: bool = Field(
        True,
        description="Repositories are made private, and one that is public is refused. false makes new ones public; the "
        "visibility of one that is there is never changed.",
    )
    include_prefix: bool = Field(
        False,
        description="Whether the candidate's few-shot prefix goes with the adapter. It holds scrubbed conversations of real "
        "users.",
    )

    @model_validator(mode="after")
    def _somewhere_to_go(self) -> HubSettings:
        if self.enabled and (self.namespace is None) == (self.folder is None):
            raise ValueError("`enabled: true` needs either a `namespace` on the hub or a local `folder`")
        if self.namespace is not None and not _NAMESPACE.fullmatch(self.namespace):
            raise ValueError(f"namespace: '{self.namespace}' is no name of a user or organization")
        try:
            parts = list(Formatter().parse(self.name))
        except ValueError as error:
            raise ValueError(f"name: '{self.name}' cannot be read ({error})") from None
        places = {place for _, place, _, _ in parts if place is not None}
        plain = "".join(text for text, _, _, _ in parts)
        odd = any(form or conversion for _, _, form, conversion in parts)
        if "workload" not in places or not places <= _PLACES or odd or not _IN_A_NAME.fullmatch(plain):
            raise ValueError(
                f"name: '{self.name}' must hold {{workload}} and may hold {{candidate}}; else letters, digits, `.`, `_`, `-`"
            )
        return self
