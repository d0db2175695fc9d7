"""Endpoint: a model that answers OpenAI chat completions, and everything that decides what it will answer.

The identities here are what the prediction cache trusts: two endpoints with the same ones are expected to answer a greedy
request alike. How an endpoint comes to be is the business of the engines beside this module.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from flywheel_assets.core.rows import Json, Variant
from flywheel_assets.resources.credentials import without_credentials
from flywheel_assets.resources.processes import KilledFromOutside

GATEWAY_TEMPLATE = "the server's own"
"""Template identity of an endpoint that somebody else runs: which one it is cannot be asked over the OpenAI API."""


class ServingError(Exception):
    """A model cannot be served or reached; the message says what, where and what to do."""


class EndpointLost(ServingError):
    """An endpoint that was up does not accept connections any more."""


class ServerKilled(EndpointLost, KilledFromOutside):
    """The process of a model server of ours is gone in the middle of its work."""


def _no_fault() -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI-compatible endpoint that is up.

    `base_url` ends with `/v1` as a rule. `slots` is how many requests it answers at once (None: not known, somebody else's
    server); more in flight only queue, and their latency would count the wait. `fault` says why the server behind it is
    gone, None while it is not known to be. `adapter_by_request`: one model name answers with the adapter and without it, as
    each request asks; otherwise the adapter has a name of its own, which is `model`. `remarks` is what the platform tells
    about the answers it got; it is kept with the report. `again` sets answers apart that were asked for anew, though nothing
    here that can be seen has changed.
    """

    base_url: str
    model: str
    engine_build: str
    model_identity: str
    template_identity: str
    adapter_identity: str | None = None
    can_load_adapter: bool = False
    adapter_by_request: bool = True
    slots: int | None = None
    context_length: int | None = None
    api_key: str | None = field(default=None, repr=False)
    fault: Callable[[], str | None] = field(default=_no_fault, repr=False, compare=False)
    remarks: Json = field(default_factory=dict, repr=False, compare=False)
    again: str | None = None

    @property
    def shown_url(self) -> str:
        """The URL for people: without a user and password that may stand in it."""
        return without_credentials(self.base_url)

    @property
    def is_local(self) -> bool:
        """Whether this process started the server; proxies are not asked for it then."""
        return self.slots is not None

    def adapter_for(self, variant: Variant) -> str | None:
        """Identity of the adapter a variant answers with; ServingError where the variant needs one and there is none."""
        if variant is not Variant.CUSTOMIZED:
            return None
        if self.adapter_identity is None:
            raise ServingError(
                f"{self.model} at {self.shown_url} was started without an adapter, so it cannot answer as '{variant}'. "
                "Deploy the candidate with its adapter."
            )
        return self.adapter_identity

    def extra_body(self, variant: Variant) -> Json:
        """What a request adds so that one server answers as any variant: llama.cpp scales the adapter by request."""
        adapter = self.adapter_for(variant)
        if self.adapter_identity is None or not self.adapter_by_request:
            return {}
        return {"lora": [{"id": 0, "scale": 0.0 if adapter is None else 1.0}]}
