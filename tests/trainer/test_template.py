from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

import flywheel_assets
from flywheel_assets.trainer.failure import FailureKind, TrainerError
from flywheel_assets.trainer.rows import Render, Row, read_rows
from flywheel_assets.trainer.template import check_template
from tests.trainer.tiny_model import weather_row, write_rows

BUILT_IN = Path(flywheel_assets.__file__).parent / "resources/templates/chatml-tools.jinja"
# The template in SmolLM2's own file, shortened: it knows neither tools nor tool calls.
WITHOUT_TOOLS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
WITHOUT_SYSTEM = "{% for m in messages if m.role != 'system' %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


def renderer(template: str) -> Render:
    def raise_exception(message: str) -> None:
        raise ValueError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = raise_exception
    compiled = environment.from_string(template)

    def render(messages: list[dict[str, Any]], tools: Any, prompt: bool) -> str:
        return compiled.render(messages=messages, tools=tools, add_generation_prompt=prompt)

    return render


@pytest.fixture
def tool_rows(tmp_path: Path) -> list[Row]:
    return read_rows([str(write_rows(tmp_path / "rows.jsonl", [weather_row(0)]))])


def chat(*roles: str) -> Row:
    return Row("r", [{"role": role, "content": "x"} for role in roles], [{"role": "assistant", "content": "y"}], None)


def refused(template: str, rows: list[Row]) -> TrainerError:
    with pytest.raises(TrainerError) as caught:
        check_template(renderer(template), rows)
    assert caught.value.kind is FailureKind.TEMPLATE
    assert "chatml-tools" in caught.value.next_step
    return caught.value


def test_the_built_in_template_shows_everything(tool_rows: list[Row]) -> None:
    check_template(renderer(BUILT_IN.read_text(encoding="utf-8")), [*tool_rows, chat("system", "user", "tool")])


def test_a_template_that_drops_tools_is_refused(tool_rows: list[Row]) -> None:
    assert "drops tools" in refused(WITHOUT_TOOLS, tool_rows).message


def test_a_template_that_shows_the_name_of_a_tool_but_not_its_description_is_refused(tool_rows: list[Row]) -> None:
    names_only = "{% for t in tools or [] %}{{ t.function.name }}{% endfor %}" + WITHOUT_TOOLS
    assert "leaves out their descriptions" in refused(names_only, tool_rows).message


def test_a_template_that_drops_the_calls_of_an_assistant_is_refused(tool_rows: list[Row]) -> None:
    no_calls = "{{ tools }}" + WITHOUT_TOOLS
    assert "drops tool calls" in refused(no_calls, tool_rows).message


def test_a_template_that_drops_system_messages_is_refused_only_where_there_are_some() -> None:
    assert "drops system messages" in refused(WITHOUT_SYSTEM, [chat("system", "user")]).message
    check_template(renderer(WITHOUT_SYSTEM), [chat("user")])


def test_a_template_without_tools_serves_a_workload_without_tools() -> None:
    check_template(renderer(WITHOUT_TOOLS), [chat("system", "user")])


def test_a_template_that_raises_is_quoted() -> None:
    refusing = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + WITHOUT_TOOLS
    )
    assert "System role not supported" in refused(refusing, [chat("system", "user")]).message
