"""A judge behind a real socket: waited for, asked once, remembered, and lost without losing what it said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flywheel_assets.core.judge import LabelledAnswer, Rubric
from flywheel_assets.core.rows import Answer, EvalRow, Prediction, WorkloadType
from flywheel_assets.resources.doctor import examine
from flywheel_assets.resources.judge import judging, readiness
from flywheel_assets.resources.judge.choice import JudgeError, judge_slice, read_labels
from flywheel_assets.resources.judge.judging import JudgeOrder, judge_answers
from flywheel_assets.settings import Settings, parse_settings
from tests.fake_platform import FakePlatform
from tests.fakes import Fault, OpenAIDouble
from tests.judges import fair, material, says

KEY = "sk-judge-s3cret"
GOOD, BAD = Answer("It is broken."), Answer("All is well.")


@pytest.fixture
def double() -> Iterator[OpenAIDouble]:
    with OpenAIDouble(answer=fair, models=("big-judge",)) as running:
        yield running


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flywheel_assets.resources.asking._FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(readiness, "_FIRST_PAUSE_S", 0.01)


class Desk:
    """Answers to be judged, and what the judge's log said."""

    def __init__(self, folder: Path, url: str, **judge: Any) -> None:
        self.folder = folder
        self.content: dict[str, Any] = {
            "candidates": [{"id": "small", "model": "small.gguf"}],
            "judge": {"model": url, "max_retries": 1, "wait_s": 0, **judge},
        }
        self.said: list[str] = []
        self.platform = FakePlatform()

    @property
    def settings(self) -> Settings:
        return parse_settings(self.content, home=self.folder / "home", root=self.folder)

    def judge(self, answers: list[Answer | None], *columns: Rubric, labels: list[LabelledAnswer] | None = None) -> Any:
        rows = [
            EvalRow(
                f"r{i}", f"t{i}", f"c{i}", {"messages": [{"role": "user", "content": f"case {i}?"}]}, GOOD, "single_turn"
            )
            for i in range(len(answers))
        ]
        predictions = [
            Prediction(row.row_id, answer, error=None if answer else "timed out")
            for row, answer in zip(rows, answers, strict=True)
        ]
        order = JudgeOrder(
            self.settings,
            "w",
            WorkloadType.GENERIC,
            columns or (Rubric.SIMILARITY,),
            rows,
            predictions,
            labels or [],
            "run",
            self.said.append,
        )
        return judge_answers(order, self.platform)


@pytest.fixture
def desk(tmp_path: Path, double: OpenAIDouble) -> Desk:
    return Desk(tmp_path, double.url)


def test_each_answer_is_judged_greedily_and_an_error_is_wrong_without_a_question(desk: Desk, double: OpenAIDouble) -> None:
    judged = desk.judge([GOOD, BAD, None])
    np.testing.assert_array_equal(judged.columns["judge_similarity"], [1.0, 0.0, 0.0])
    assert double.count == 2
    assert {(body["model"], body["temperature"], body["seed"]) for body in double.chats} == {("big-judge", 0, 0)}


def test_the_same_answers_are_judged_once_and_equal_questions_are_one(desk: Desk, double: OpenAIDouble) -> None:
    first = desk.judge([GOOD, BAD])
    again = desk.judge([GOOD, BAD, BAD])
    assert double.count == 3, "only the new row was asked about"
    np.testing.assert_array_equal(again.columns["judge_similarity"][:2], first.columns["judge_similarity"])
    assert any("2 answers in the cache" in line for line in desk.said)
    label = LabelledAnswer({"messages": [{"role": "user", "content": "case 0?"}]}, GOOD, GOOD, True)
    desk.judge([GOOD], labels=[label])
    assert double.count == 3, "the label asks what row 0 asked"


def test_another_judge_or_rubric_asks_anew(desk: Desk, double: OpenAIDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.judge([GOOD])
    double.models = ("other-judge",)
    desk.judge([GOOD])
    assert double.count == 2
    monkeypatch.setattr(judging, "RUBRIC_VERSION", "2")
    desk.judge([GOOD])
    assert double.count == 3


def test_the_swap_sees_through_a_judge_that_favours_a_place(desk: Desk, double: OpenAIDouble) -> None:
    fair_one = desk.judge([GOOD, BAD], Rubric.PAIRWISE)
    np.testing.assert_array_equal(fair_one.columns["judge_pairwise"], [0.5, 0.0])
    double.models, double.answer = ("biased",), lambda body: says({"winner": "A"})
    biased = desk.judge([GOOD, BAD], Rubric.PAIRWISE)
    np.testing.assert_array_equal(biased.columns["judge_pairwise"], [0.5, 0.5])
    assert biased.aggregates["judge_inconsistent"]["count"] == 2
    # Four each, but that the answer of row 0 is the reference: both orders are the same question.
    assert double.count == 6


def test_labels_show_what_a_lenient_judge_is_worth(desk: Desk, double: OpenAIDouble) -> None:
    # Lets every second wrong answer pass.
    def lenient(body: dict[str, Any]) -> dict[str, Any]:
        shown = material(body)
        passes = shown["answer"] == shown["expected"] or int(shown["conversation"][0]["content"].split()[1][:-1]) % 2
        return says({"score": 9 if passes else 2})

    double.answer = lenient
    labels = [
        LabelledAnswer({"messages": [{"role": "user", "content": f"label {i}?"}]}, GOOD, GOOD if i < 40 else BAD, i < 40)
        for i in range(80)
    ]
    judged = desk.judge([GOOD] * 50 + [BAD] * 50, labels=labels)
    found = judged.aggregates["judge_similarity_corrected"]
    assert float(np.mean(judged.columns["judge_similarity"] > 0.5)) == 0.75
    assert (found["sensitivity"], found["specificity"]) == (1.0, 0.5)
    assert found["value"] == pytest.approx(0.5) and found["low"] < 0.5 < found["high"]


def test_garbage_is_counted_and_what_the_judge_said_is_kept(desk: Desk, double: OpenAIDouble) -> None:
    double.answer = lambda body: says("I would give it a 10 out of 10!")
    judged = desk.judge([GOOD, BAD])
    assert np.isnan(judged.columns["judge_similarity"]).all()
    assert (judged.unparsable, judged.unparsable_share) == (2, 1.0)
    assert judged.first_unparsable == "I would give it a 10 out of 10!"
    desk.judge([GOOD, BAD])
    assert double.count == 2, "a greedy judge would only say it again"


@pytest.mark.parametrize(
    "garbage", [b"<html>proxy</html>", b'{"choices": []}', b'{"choices": [{"message": {"content": 7}}]}']
)
def test_a_reply_that_is_no_completion_is_no_verdict_and_asked_again(
    desk: Desk, double: OpenAIDouble, garbage: bytes
) -> None:
    double.faults.append(Fault(body=garbage))
    assert desk.judge([GOOD]).unparsable == 1
    assert desk.judge([GOOD]).unparsable == 0


def test_a_question_the_judge_refuses_is_no_verdict_and_the_log_says_why(desk: Desk, double: OpenAIDouble) -> None:
    double.faults.append(Fault(status=400))
    judged = desk.judge([GOOD, BAD])
    assert (judged.asked, judged.unparsable) == (2, 1)
    assert any("no verdict on 1 questions; the first: HTTP 400" in line for line in desk.said)


def test_a_busy_judge_is_asked_again(desk: Desk, double: OpenAIDouble) -> None:
    double.faults.extend([Fault(status=429, retry_after="0.05"), Fault(status=503)])
    judged = desk.judge([GOOD, BAD, GOOD])
    assert judged.unparsable == 0 and double.count == 5


def test_a_judge_that_dies_half_way_ends_the_run_and_the_next_asks_for_the_rest(desk: Desk, double: OpenAIDouble) -> None:
    desk.content["judge"]["concurrency"] = 1

    def until_ten(body: dict[str, Any]) -> dict[str, Any]:
        if double.count >= 10:
            double.always = Fault(status=503)
        return fair(body)

    double.answer = until_ten
    with pytest.raises(
        JudgeError, match=r"the judge '.*' was lost: .*HTTP 503.*10 of 30 verdicts are kept.*asks for the rest"
    ):
        desk.judge([GOOD] * 30)
    assert double.count == 12, "one question was tried twice, and no other after it"
    double.always, double.answer = None, fair
    assert desk.judge([GOOD] * 30).unparsable == 0
    assert double.count == 12 + 20


def test_a_judge_whose_server_is_gone_is_named_with_what_is_kept(desk: Desk, double: OpenAIDouble) -> None:
    desk.content["judge"]["concurrency"] = 1
    original, seen = judging._progress, []

    def stopping(*args: Any) -> Any:
        report = original(*args)

        def progress(done: int, *rest: int) -> None:
            seen.append(done)
            if done == 5:
                double.stop()
            report(done, *rest)

        return progress

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judging, "_progress", stopping)
        with pytest.raises(JudgeError, match=r"does not accept connections any more.*5 of 12 verdicts are kept"):
            desk.judge([GOOD] * 12)


def test_a_judge_that_is_not_up_yet_is_waited_for_and_the_wait_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with OpenAIDouble(answer=fair) as double:
        url = double.url
    # The port is free again: nobody listens until the wait has begun.
    port = int(url.split(":")[2].split("/")[0])
    desk = Desk(tmp_path, url, wait_s=20)
    late = OpenAIDouble(answer=fair, port=port)
    monkeypatch.setattr(readiness.time, "sleep", lambda _: late.__enter__() if late._server is None else None)
    try:
        assert desk.judge([GOOD]).unparsable == 0
    finally:
        late.stop()
    assert any("not ready, waiting for" in line and "cannot be reached" in line for line in desk.said)
    assert any("ready, double at" in line for line in desk.said)


def test_a_judge_that_never_comes_up_is_an_error_that_says_how_long_was_waited(tmp_path: Path) -> None:
    desk = Desk(tmp_path, "http://127.0.0.1:9/v1", wait_s=0.05)
    with pytest.raises(JudgeError, match=r"was not ready within 0.05 s \(judge.wait_s\).*cannot be reached"):
        desk.judge([GOOD])


def test_a_wrong_key_is_no_reason_to_wait_and_the_key_is_in_no_log_error_or_setting(
    tmp_path: Path, double: OpenAIDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    desk = Desk(tmp_path, double.url, api_key_env="JUDGE_KEY", wait_s=600)
    double.key = "another"
    with pytest.raises(JudgeError, match="The key in JUDGE_KEY was not accepted") as refused:
        desk.judge([GOOD])
    double.key = KEY
    # The double quotes the key it is given, as some servers do.
    double.faults.append(Fault(status=400))
    desk.judge([GOOD])
    double.always = Fault(status=500)
    with pytest.raises(JudgeError) as lost:
        desk.judge([BAD])
    findings = [finding.to_json() for finding in examine(desk.settings)]
    everything = " ".join([*desk.said, str(refused.value), str(lost.value), json.dumps(findings), repr(desk.settings)])
    assert KEY not in everything and "***" in everything
    kept = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert kept and not any(KEY.encode() in path.read_bytes() for path in kept)
    assert double.chat_headers[0]["authorization"] == f"Bearer {KEY}"
    monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(JudgeError, match=r"environment variable JUDGE_KEY .* is not set"):
        desk.judge([GOOD])


def test_calls_cache_and_cost_are_said_before_anything_is_asked(desk: Desk, double: OpenAIDouble) -> None:
    desk.content["judge"]["model_name"] = "big-judge"
    desk.content["prices"] = {"big-judge": {"prompt": 1000.0, "completion": 10_000.0}}

    class Log(list[str]):
        def append(self, line: str) -> None:
            super().append(f"[{double.count} asked] {line}")

    desk.said = Log()
    desk.judge([GOOD, BAD])
    line = next(text for text in desk.said if "to ask:" in text)
    assert line.startswith("[0 asked]")
    assert "2 questions about judge_similarity, 0 answers in the cache; to ask: 2 calls" in line
    chars = sum(len(message["content"]) for body in double.chats for message in body["messages"])
    usd = float(line.split("about $")[1])
    assert usd == pytest.approx((chars / 4 * 1000 + 2 * 8 * 10_000) / 1e6, abs=0.006)
    desk.content["prices"] = {}
    desk.judge([GOOD, BAD])
    assert any("2 answers in the cache; to ask: 0 calls" in text and "no price known" in text for text in desk.said)


def test_a_local_judge_is_a_deployed_candidate_given_back_afterwards(tmp_path: Path, double: OpenAIDouble) -> None:
    desk = Desk(tmp_path, "")
    desk.content["judge"] = {"candidate": "small"}
    (tmp_path / "small.gguf").write_text("weights")
    desk.platform.urls = {"small": double.url}
    assert desk.judge([GOOD]).unparsable == 0
    assert (desk.platform.deployed_now, desk.platform.most_deployed, double.chats[0]["model"]) == (0, 1, "small")
    assert any("deploying it" in line for line in desk.said)


def test_what_a_result_depends_on_is_the_judge_the_rubrics_and_the_labels_and_no_patience(
    desk: Desk, tmp_path: Path
) -> None:
    before = judge_slice(desk.settings, "w")
    desk.content["judge"] |= {"concurrency": 9, "timeout_s": 1, "max_retries": 9, "wait_s": 1}
    assert judge_slice(desk.settings, "w") == before
    slices = [before]
    for change in ({"model_name": "x"}, {"pairwise": True}, {"labels": "labels.jsonl"}):
        desk.content["judge"] |= change
        slices.append(judge_slice(desk.settings, "w"))
    (tmp_path / "labels.jsonl").write_text("")
    slices.append(judge_slice(desk.settings, "w"))
    desk.content["judge"] = {"candidate": "small"}
    slices.append(judge_slice(desk.settings, "w"))
    (tmp_path / "small.gguf").write_text("weights")
    slices.append(judge_slice(desk.settings, "w"))
    assert len({json.dumps(found, sort_keys=True) for found in slices}) == len(slices)
    desk.content["judge"] = {}
    assert judge_slice(desk.settings, "w") is None


def test_labels_that_are_not_there_or_not_right_are_an_error_with_the_place(desk: Desk, tmp_path: Path) -> None:
    desk.content["judge"]["labels"] = "labels.jsonl"
    with pytest.raises(JudgeError, match=r"judge.labels: .*labels.jsonl cannot be read"):
        read_labels(desk.settings, "w")
    (tmp_path / "labels.jsonl").write_text("{}\n")
    with pytest.raises(JudgeError, match=r"judge.labels: .*labels.jsonl, line 1: it lacks request"):
        read_labels(desk.settings, "w")


def test_the_doctor_says_which_judge_there_is_and_whether_it_answers(desk: Desk, double: OpenAIDouble) -> None:
    def judge() -> Any:
        return next(finding for finding in examine(desk.settings) if finding.what == "judge")

    assert (judge().ok, judge().found) == (True, f"{double.url} serves big-judge")
    double.stop()
    assert not judge().ok and "cannot be reached" in judge().advice
    desk.content["judge"] = {"candidate": "small", "labels": "none.jsonl"}
    assert not judge().ok and judge().found.startswith("candidate small: ") and "does not exist" in judge().found
    labels = next(finding for finding in examine(desk.settings) if finding.what == "judge, labels")
    assert not labels.ok and "cannot be read" in labels.found
    desk.content["judge"] = {}
    assert judge().found.startswith("none")
