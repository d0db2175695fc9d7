"""The door: what is personal, secret or of this machine does not leave, and the message does not tell it either."""

from __future__ import annotations

from pathlib import Path

import pytest

from flywheel_assets.core.cleaning import CleaningPolicy, Entity
from flywheel_assets.core.payload import PUBLISHED
from flywheel_assets.resources.hub import PayloadRefused, collect


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("README.md", "Ask ada@example.org about it", "email"),
        ("prefix.json", '{"messages": [{"role": "user", "content": "I am on +49 30 901820"}]}', "phone"),
        (
            "prefix.json",
            '{"messages": [{"tool_calls": [{"function": {"arguments": "{\\"password\\": \\"hunter2!x\\"}"}}]}]}',
            "password",
        ),
        ("chat_template.jinja", "{# ghp_0123456789abcdefghijABCDEFGHIJ012345 #}", "api_key"),
    ],
)
def test_what_is_personal_or_secret_does_not_leave(tmp_path: Path, name: str, text: str, kind: str) -> None:
    (tmp_path / name).write_text(text)
    # Also where records are kept as they are; secrets also where they are not looked for in records.
    kinds = frozenset({Entity.EMAIL, Entity.PHONE})
    with pytest.raises(PayloadRefused, match=f"{name} holds 1 value of the kind `{kind}`") as refused:
        collect({name: tmp_path / name}, CleaningPolicy(scrub=False, entities=kinds), {})
    assert "example.org" not in str(refused.value) and "hunter2" not in str(refused.value)


def test_a_folder_of_this_machine_is_not_told(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(f'{{"base_model_name_or_path": "{tmp_path}/models/small"}}')
    with pytest.raises(PayloadRefused, match=r"names a folder of this machine \(FLYWHEEL_HOME\)"):
        collect(
            {"adapter_config.json": tmp_path / "adapter_config.json"}, CleaningPolicy(), {str(tmp_path): "FLYWHEEL_HOME"}
        )


def test_a_short_folder_is_no_part_of_an_address(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("See https://example.com/app, or /application.")
    assert collect({"README.md": tmp_path / "README.md"}, CleaningPolicy(), {"/app": "where flywheel.yaml lies"}).files


def test_placeholders_and_what_is_allowed_may_leave(tmp_path: Path) -> None:
    (tmp_path / "prefix.json").write_text('{"messages": [{"role": "user", "content": "<EMAIL_1>, or help@shop.example"}]}')
    policy = CleaningPolicy(allow=("help@shop.example",))
    assert collect({"prefix.json": tmp_path / "prefix.json"}, policy, {}).files


def test_a_file_that_is_none_of_an_adapter_s_stays(tmp_path: Path) -> None:
    (tmp_path / "optimizer.pt").write_bytes(b"x")
    assert "optimizer.pt" not in PUBLISHED
    with pytest.raises(PayloadRefused, match=r"optimizer.pt is no file of an adapter"):
        collect({"optimizer.pt": tmp_path / "optimizer.pt"}, CleaningPolicy(), {})
