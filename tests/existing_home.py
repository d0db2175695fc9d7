"""A home that another version of the package made: its traffic, its settings, who answers, and how it is unpacked.

What belongs here: what the maker of the archive (`tests/make_existing_home.py`) and the tests that open it must agree on.
What does not: building the archive, and what is promised of it.
"""

from __future__ import annotations

import json
import random
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml
from dagster import DagsterInstance

from flywheel_assets.core.rows import EvalRow, Json, Prediction, Variant
from flywheel_assets.resources.evaluation import evaluate
from flywheel_assets.resources.ingest import ingest
from flywheel_assets.resources.prediction_cache import CACHE_FILE, PredictionCache
from tests.assets.conftest import Bench
from tests.fake_platform import FakePlatform
from tests.fakes import OpenAIDouble

ARCHIVE = Path(__file__).parent / "fixtures" / "home_0.1.0.tar.xz"
TICKETS, ANSWERS = "tickets", "answers"
# As a user of that version wrote them: nothing here knows of any key that came later, and `answers` has only defaults.
SETTINGS = """\
candidates:
  - id: small
    model: small.gguf
  - id: remote
    model: https://models.example/v1
    engine: openai
    model_name: remote-1
workloads:
  tickets:
    split: {eval_size: 90}
    decision:
      gates: [{metric: function_name, margin: 0.3}]
      looks: [60, 90, 150]
"""
_TOOLS = {"open_ticket": "subject", "order_status": "order_id", "refund_order": "order_id"}
_THINGS = ("printer", "laptop", "headset", "monitor", "keyboard", "router", "phone", "charger", "desk", "chair")


def traffic(workload: str, conversations: range) -> list[Json]:
    """Log records: desk conversations of one to three turns that call a tool or only say something, or short texts."""
    return [record for number in conversations for record in _conversation(workload, number)]


def _conversation(workload: str, number: int) -> Iterator[Json]:
    rng = random.Random(f"{workload} {number}")
    turns = 1 if workload == ANSWERS else rng.choice((1, 1, 1, 1, 2, 3))
    messages: list[Json] = []
    for turn in range(turns):
        thing, order = rng.choice(_THINGS), str(rng.randrange(10_000, 99_999))
        said, answer = _turn(rng, workload, f"{number}.{turn}", thing, order)
        messages = [*messages, {"role": "user", "content": said}]
        tools = {} if workload == ANSWERS else {"tools": [_tool(name, argument) for name, argument in _TOOLS.items()]}
        yield {
            "timestamp": 1_790_000_000 + 600 * number + 60 * turn,
            "workload_id": workload,
            "client_id": "desk",
            "session_id": f"{workload}-{number}",
            "request": {"model": "big-model", "messages": messages, "max_tokens": 64, **tools},
            "response": {"model": "big-model", "choices": [{"index": 0, "message": answer, "finish_reason": "stop"}]},
        }
        messages = [*messages, answer]


def _turn(rng: random.Random, workload: str, case: str, thing: str, order: str) -> tuple[str, Json]:
    """What the user said, and the teacher's answer."""
    if workload == ANSWERS:
        return f"Case {case}: what is broken, and where is order {order}?", _text(f"The {thing}; {order} is on its way.")
    kind = rng.choice((*_TOOLS, "nothing", "nothing"))
    if kind == "nothing":
        return f"Case {case}: thank you for the {thing} of order {order}!", _text(f"You are welcome, enjoy the {thing}.")
    value = f"broken {thing}" if kind == "open_ticket" else order
    said = {
        "open_ticket": f"Case {case}: my {thing} of order {order} is broken.",
        "order_status": f"Case {case}: where is the {thing} of order {order}?",
        "refund_order": f"Case {case}: refund the {thing} of order {order}.",
    }[kind]
    call = {"name": kind, "arguments": json.dumps({_TOOLS[kind]: value})}
    return said, {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": call}]}


def _text(content: str) -> Json:
    return {"role": "assistant", "content": content}


def _tool(name: str, argument: str) -> Json:
    schema = {"type": "object", "properties": {argument: {"type": "string"}}, "required": [argument]}
    return {"type": "function", "function": {"name": name, "description": name.replace("_", " "), "parameters": schema}}


def answering(records: Sequence[Json]) -> Callable[[Json], Json]:
    """Who answers for the candidates: the teacher's words, or none of them on a share of the rows that depends on who is
    asked. The customized one is always right."""
    known = {record["request"]["messages"][-1]["content"]: record["response"]["choices"][0]["message"] for record in records}

    def answer(body: Json) -> Json:
        question = body["messages"][-1]["content"]
        skill = 1.0 if tuned(body) else {"small": 0.5, "remote": 0.8}[body["model"]]
        chance = int(sha256(f"{body['model']} {question}".encode()).hexdigest()[:8], 16) / 16**8
        return known[question] if chance < skill else _text("I would rather write Python.")

    return answer


def tuned(body: Json) -> bool:
    """Whether a request went to the customized variant."""
    return any(adapter["scale"] for adapter in body.get("lora", ()))


@dataclass
class CachingPlatform(FakePlatform):
    """Trains nothing real, and really asks: what the prediction cache of the home does not hold goes over a socket."""

    home: Path = Path()

    def ask(
        self,
        endpoint: Any,
        rows: Sequence[EvalRow],
        *,
        variant: Variant,
        prefix: Sequence[Json],
        settings: Any,
        progress: Callable[[int, int, int, int], None],
        sample: int = 0,
    ) -> list[Prediction]:
        with PredictionCache(self.home / CACHE_FILE) as cache:
            return evaluate(
                endpoint,
                rows,
                variant=variant,
                prefix_messages=prefix,
                settings=settings,
                cache=cache,
                progress=progress,
                sample=sample,
            )


@dataclass
class ExistingHome:
    """A flywheel around a home, and the endpoint that counts what is asked."""

    bench: Bench
    double: OpenAIDouble

    @property
    def platform(self) -> FakePlatform:
        return self.bench.platform

    def ingest(self, records: Sequence[Json]) -> None:
        """Bring records in, as `flywheel ingest` does."""
        path = self.bench.folder / "batch.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        ingest([path], self.bench.flywheel.traces)


@contextmanager
def flywheel_in(folder: Path, instance: DagsterInstance, settings: str, records: Sequence[Json]) -> Iterator[ExistingHome]:
    """The flywheel whose home is `folder/home`, with everything outside of it faked. `records` are all that may be asked."""
    bench = Bench(folder, instance)
    bench.content = yaml.safe_load(settings)
    with OpenAIDouble(answer=answering(records)) as double:
        bench.platform = CachingPlatform(urls={"small": double.url, "remote": double.url}, home=folder / "home")
        yield ExistingHome(bench, double)


def unpack(folder: Path) -> str:
    """Lay the archived home out in `folder`; what its flywheel.yaml says."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return (folder / "flywheel.yaml").read_text(encoding="utf-8")
