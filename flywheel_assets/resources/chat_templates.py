"""Chat templates: the text that turns messages and tools into a prompt, the same in training and in serving.

What belongs here: finding the template a candidate names. What does not: rendering it (the engines do) and judging whether
it can carry tools (the trainer does, before it trains).
"""

from __future__ import annotations

from pathlib import Path

from flywheel_assets.settings import Candidate, SettingsError

_BUILT_IN = Path(__file__).with_name("templates")


def resolve_template(candidate: Candidate, root: Path) -> str | None:
    """The template that replaces the model's own, or None where the candidate names none.

    `chat_template` is the name of a built-in one, else a file, relative to `root` (the folder of flywheel.yaml). Raises
    SettingsError when it is neither.
    """
    name = candidate.chat_template
    if name is None:
        return None
    if name in built_in_templates():
        return (_BUILT_IN / f"{name}.jinja").read_text(encoding="utf-8")
    file = root / Path(name).expanduser()
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join(built_in_templates())
        raise SettingsError(
            f"candidate '{candidate.id}': chat_template '{name}' is neither a built-in template ({known}) "
            f"nor a file that can be read ({file}: {error})."
        ) from None


def built_in_templates() -> list[str]:
    """Names of the templates that come with the package."""
    return sorted(file.stem for file in _BUILT_IN.glob("*.jinja"))
