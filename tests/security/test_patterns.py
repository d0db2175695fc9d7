"""Regular expressions of flywheel.yaml meet texts of strangers: they are matched in linear time, or refused."""

from __future__ import annotations

import time

import pytest

from flywheel_assets.core.cleaning import CleaningPolicy, scrub_record
from flywheel_assets.core.patterns import literally, pattern
from flywheel_assets.core.suites import DomainRule, domain
from flywheel_assets.settings.suites import Domain


def test_a_pattern_that_python_needs_ages_for_takes_no_time() -> None:
    began = time.monotonic()
    rule = DomainRule("billing", text="(a+)+$")
    request = {"messages": [{"role": "user", "content": "a" * 50_000 + "!"}]}
    assert domain(request, {"role": "assistant"}, [rule]) != "billing"
    record = {
        "request": {"messages": [{"role": "user", "content": "mail " + "a" * 5_000 + "@example.com"}]},
        "response": {"choices": []},
    }
    scrub_record(record, b"{}", CleaningPolicy(allow=(r"/(\w+\w+)+x/",)))
    # Python's engine would need longer than the world has stood.
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("text", ["(", "(?=a)b", r"(a)\1", "((x{1,900}){1,900}){1,900}"])
def test_what_cannot_be_matched_so_is_refused_with_the_syntax_named(text: str) -> None:
    with pytest.raises(ValueError, match="linear time"):
        pattern(text)
    with pytest.raises(ValueError, match="linear time"):
        Domain(domain="billing", text=text)


def test_a_literal_text_matches_itself_only() -> None:
    for text in ("a.b", "Größe (100%)", r"\d", "+49 30 123"):
        assert pattern(literally(text)).fullmatch(text)
    assert not pattern(literally("a.b")).fullmatch("acb")
