"""YAML that is wrong, odd or an attack: one sentence each, with the line where there is one."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from flywheel_assets.settings import SettingsError, load_settings
from flywheel_assets.settings.yaml_text import YamlFault, read_yaml

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)
FAULTS = {
    "a: 1\nb: 2\na: 3\n": "the key `a` stands twice in one block, again in line 3",
    "a:\n  - {b: 1, b: 2}\n": "the key `b` stands twice in one block, again in line 2",
    "a: " + "9" * 5000 + "\n": "in line 1 is no value",
    "a: 2026-02-31\n": "`2026-02-31` in line 1 is no value",
    "a: 2026-12-01T99:00:00Z\n": "in line 1 is no value",
    "a: " + "[" * 5000 + "]" * 5000 + "\n": "line 1 is nested more than 50 levels deep",
    LAUGHS: "its anchors unfold to",
    "a: &a [*a]\n": "an anchor in line 1 holds itself",
    "a: [1\nb: 2\n": "line 2",
    "a: \t- b: [\n": "line 1",
    "? [a, b]\n: 1\n? {c: d}\n: 2\n": "unhashable",
    "a: !!python/object/apply:os.system [ls]\n": "could not determine a constructor",
    "a: \x07\n": "special characters are not allowed",
}


@pytest.mark.parametrize("text", FAULTS, ids=range(len(FAULTS)))
def test_a_fault_is_one_sentence(text: str, tmp_path: Path) -> None:
    began = time.monotonic()
    file = tmp_path / "flywheel.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError) as refused:
        load_settings(file)
    assert FAULTS[text] in str(refused.value) and str(file) in str(refused.value)
    assert str(refused.value).count("\n") <= 1 and len(str(refused.value)) < 400
    assert time.monotonic() - began < 10


def test_anchors_and_merges_that_people_use_are_read() -> None:
    text = "base: &base {a: 1, b: 2}\none: {<<: *base, b: 3}\ntwo: *base\n"
    assert read_yaml(text) == {"base": {"a": 1, "b": 2}, "one": {"a": 1, "b": 3}, "two": {"a": 1, "b": 2}}
    assert read_yaml("") is None
    with pytest.raises(YamlFault, match="characters"):
        read_yaml("#" * 3_000_000)
