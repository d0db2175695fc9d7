"""Which languages users write in: told from a sample, the same every time, at the sample's cost."""

from __future__ import annotations

import numpy as np
import pytest

from flywheel_assets.core.datasets import languages as module
from flywheel_assets.core.datasets.languages import SAMPLE, UNDETERMINED, language_of, languages_of
from flywheel_assets.core.datasets.segments import read_summary
from tests.core.datasets.workbench import Workbench, log_line

ENGLISH, GERMAN, JAPANESE = (
    "What is the weather like in town {} this afternoon?",
    "Bitte stornieren Sie meine Reservierung Nummer {} für Dienstag.",
    "注文番号{}の商品はどこにありますか、教えてください。",
)


def asked(n: int, *texts: str) -> list[dict[str, object]]:
    return [log_line(i, messages=[{"role": "user", "content": texts[i % len(texts)].format(i)}]) for i in range(n)]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (ENGLISH, "en"),
        (GERMAN, "de"),
        (JAPANESE, "ja"),
        ("Où se trouve ma commande ? Je l'attends depuis hier.", "fr"),
        *[(nothing, UNDETERMINED) for nothing in ("", "hi", "42 17 99", '{"a": 1}')],
    ],
)
def test_a_language_is_told_or_left_open(text: str, code: str) -> None:
    assert language_of(text) == code


def test_a_profile_counts_the_languages_of_what_users_said(workbench: Workbench) -> None:
    workbench.records(asked(30, ENGLISH, GERMAN, GERMAN))
    summary = read_summary(workbench.path("records"))
    alive = np.ones(summary.rows, bool)
    assert languages_of(workbench.path("records"), summary.segments, alive) == {"de": 20, "en": 10}
    alive[1::3] = False
    assert languages_of(workbench.path("records"), summary.segments, alive) == {"de": 10, "en": 10}


def test_only_a_sample_is_looked_at_spread_over_all_records(workbench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = asked(3 * SAMPLE, ENGLISH)
    workbench.records(lines[: 2 * SAMPLE])
    workbench.records(asked(3 * SAMPLE, GERMAN)[2 * SAMPLE :])
    looked = []
    monkeypatch.setattr(module, "language_of", lambda text: looked.append(text) or "x")
    summary = read_summary(workbench.path("records"))
    assert languages_of(workbench.path("records"), summary.segments, np.ones(summary.rows, bool)) == {"x": SAMPLE}
    german = sum("Reservierung" in text for text in looked)
    assert abs(german - SAMPLE / 3) <= 1


def test_records_without_a_word_of_the_user_are_undetermined(workbench: Workbench) -> None:
    workbench.records([log_line(0, messages=[{"role": "system", "content": "Say something in English, please."}])])
    summary = read_summary(workbench.path("records"))
    assert languages_of(workbench.path("records"), summary.segments, np.ones(1, bool)) == {UNDETERMINED: 1}
