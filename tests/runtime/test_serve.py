"""What `flywheel serve` says to try asks the model the way it was examined."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from flywheel_assets.core.rows import Variant
from flywheel_assets.resources.serving import Endpoint
from flywheel_assets.runtime.selection import Selection
from flywheel_assets.runtime.serve import curl, how_to_ask
from flywheel_assets.settings import Candidate

ENDPOINT = Endpoint(
    base_url="http://127.0.0.1:1/v1",
    model="small",
    engine_build="b1",
    model_identity="m",
    template_identity="t",
    adapter_identity="a",
    can_load_adapter=True,
)
SYSTEM, USER = {"role": "system", "content": "Route."}, {"role": "user", "content": "Where is it?"}
SHOTS = ({"role": "user", "content": "Refund it."}, {"role": "assistant", "content": "Refunded."})
CANDIDATE = Candidate(id="small", model="small.gguf")


def asked(selection: Selection) -> list[dict[str, str]]:
    words = shlex.split(curl(ENDPOINT, {"messages": [SYSTEM, USER]}, selection))
    messages: list[dict[str, str]] = json.loads(words[words.index("-d") + 1])["messages"]
    return messages


def test_a_prefixed_winner_is_asked_with_its_prefix_behind_the_instructions() -> None:
    selection = Selection(
        CANDIDATE, Variant.PREFIXED, None, "promote", True, prefix=SHOTS, prefix_file=Path("/a/prefix.json")
    )
    assert asked(selection) == [SYSTEM, *SHOTS, USER]
    said = how_to_ask(selection)
    assert said is not None and "2 messages" in said and "/a/prefix.json" in said


def test_other_variants_are_asked_as_the_request_stands() -> None:
    selection = Selection(CANDIDATE, Variant.CUSTOMIZED, Path("adapter.gguf"), "promote", True)
    assert asked(selection) == [SYSTEM, USER]
    assert how_to_ask(selection) is None
