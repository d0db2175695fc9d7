"""What an alert says: what happened, why, what now; and what it never says."""

from __future__ import annotations

import pytest

from flywheel_assets.core.alerts import (
    Alert,
    Standing,
    chat_message,
    decision_changed,
    drifted,
    first_line,
    mail_text,
    run_failed,
)

KEEP, PROMOTE = Standing("keep", None, None), Standing("promote", "small", "customized")
UI = "https://dagster.example.com/"


def failed(reason: str = "out of memory") -> Alert:
    return run_failed("r-1", workload="tickets", candidate="small", failed=["adapter"], reason=reason, ui_url=UI)


def changed(before: Standing | None, now: Standing, number: int = 1) -> Alert:
    return decision_changed(
        "tickets",
        before=before,
        now=now,
        reasons=["A loss of 0.02 lies within the margin."],
        number=number,
        version="v1",
        ui_url=UI,
    )


def test_a_failed_run_says_where_what_why_and_what_now() -> None:
    alert = failed()
    assert alert.subject == "A run failed: tickets / small"
    assert alert.lines[0] == "What failed: adapter"
    assert alert.lines[1] == "Why: out of memory"
    assert "`flywheel run tickets` tries again" in alert.lines[2]
    assert alert.link == "https://dagster.example.com/runs/r-1"


def test_a_run_of_no_workload_has_a_sentence_too() -> None:
    alert = run_failed("r-1", workload=None, candidate=None, failed=[], reason="", ui_url=None)
    assert (alert.subject, alert.link) == ("A run failed: everything", None)
    assert alert.lines[:2] == ("What failed: the run itself", "Why: no reason was given")


def test_a_decision_says_what_it_was_and_what_a_person_does_next() -> None:
    alert = changed(KEEP, PROMOTE)
    assert alert.subject == "tickets: the decision is now promote: small (customized)"
    assert alert.lines[0] == "It was keep."
    assert "`flywheel approve tickets" in alert.lines[-1]
    assert "approve" not in changed(PROMOTE, KEEP).lines[-1]
    assert changed(None, KEEP).lines[0] == "It is the first decision on this workload."


def test_a_verdict_that_comes_back_is_another_alert_and_the_same_drift_is_not() -> None:
    assert changed(KEEP, PROMOTE, number=1).id != changed(KEEP, PROMOTE, number=3).id
    one, again = (drifted("tickets", summary=text, since="v1", ui_url=UI) for text in ("60 new.", "90 new."))
    assert one.id == again.id != drifted("tickets", summary="60 new.", since="v2", ui_url=UI).id


def test_only_the_first_line_of_a_reason_is_told_and_none_of_the_values_it_quotes() -> None:
    reason = "row 7: 'Jane Doe 1984, order 12' is no number, ask jane.doe@example.com\nTraceback: secrets"
    said = first_line(reason)
    assert said.startswith("row 7: '...' is no number, ask ")
    assert "jane" not in said.lower() and "Traceback" not in said
    key = "sk-proj-" + "abcDEF123456" * 3
    assert key not in str(failed(f"401 for key {key}").lines)
    assert len(first_line("no room left " * 100)) == 300


def test_a_chat_shows_an_alert_and_obeys_nothing_in_it() -> None:
    text = chat_message(failed("<!channel> & <https://evil.example|here>"))["text"]
    assert text.startswith("*A run failed: tickets / small*\n")
    assert "&lt;!channel&gt; &amp; &lt;https" in text and "<!" not in text
    assert text.endswith("https://dagster.example.com/runs/r-1")


def test_a_mail_has_the_same_words() -> None:
    subject, body = mail_text(failed())
    assert subject == "[flywheel] A run failed: tickets / small"
    assert body.splitlines() == [*failed().lines, "https://dagster.example.com/runs/r-1"]


@pytest.mark.parametrize("alert", [failed(), changed(KEEP, PROMOTE)])
def test_an_alert_survives_being_written_down(alert: Alert) -> None:
    assert Alert.from_json(alert.to_json()) == alert
