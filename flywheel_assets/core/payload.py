"""The payload of a publication: which files of an adapter leave this machine, and what none of them may hold.

What belongs here: the list of names that are ever published, and the last look for personal data, secrets and paths of this
machine. What does not: where the files lie and how they travel (`resources.hub`), and the words of the card (`model_card`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from flywheel_assets.core.cleaning import CleaningPolicy, Entity, allow_pattern
from flywheel_assets.core.cleaning.json_text import is_json_text
from flywheel_assets.core.cleaning.placeholders import Placeholders

CARD = "README.md"
PREFIX = "prefix.json"
GGUF = "adapter.gguf"
# Named one by one: a training folder may hold optimizer states and pickles one day, which are nobody's business.
PUBLISHED = frozenset(
    {
        CARD,
        PREFIX,
        GGUF,
        "adapter_config.json",
        "adapter_model.safetensors",
        "added_tokens.json",
        "chat_template.jinja",
        "merges.txt",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "vocab.json",
        "vocab.txt",
    }
)
# The words of the base model's tokenizer: no text of anybody's, and full of what looks like one.
_VOCABULARIES = frozenset({"added_tokens.json", "merges.txt", "tokenizer.json", "vocab.json", "vocab.txt"})
_TEXT = (".json", ".jinja", ".md", ".txt")
_SECRETS = frozenset({Entity.API_KEY, Entity.JWT, Entity.TOKEN, Entity.PASSWORD, Entity.SECRET, Entity.PRIVATE_KEY})
# What a hash looks like; the digits in one are no number of anybody's.
_DIGEST = re.compile(r"\b(?=[0-9a-f]*[a-f])(?=[0-9a-f]*[0-9])[0-9a-f]{16,64}\b")


def is_examined(name: str) -> bool:
    """Whether a file is text that somebody may have written, and is looked through before it leaves."""
    return name.endswith(_TEXT) and name not in _VOCABULARIES


def findings(name: str, text: str, policy: CleaningPolicy, private_paths: Mapping[str, str]) -> list[str]:
    """What must not leave this machine in a text, one sentence each, without the values; empty where there is nothing.

    `private_paths` maps folders to what they are, such as `FLYWHEEL_HOME`. `policy` says which kinds of values are looked
    for beside secrets, and what is allowed; its `scrub` is not asked: whoever keeps records as they are still publishes none
    of them.
    """
    placeholders = Placeholders(policy.entities | _SECRETS, allow_pattern(policy.allow), b"")
    for field, part in _texts(name, text):
        placeholders.scrub(_DIGEST.sub("", part), field)
    found = [f"{name} holds {_counted(count, kind.value)}" for kind, count in sorted(placeholders.replaced.items())]
    named = [what for path, what in private_paths.items() if _names_folder(path, text)]
    return found + [f"{name} names a folder of this machine ({what})" for what in named]


def _names_folder(path: str, text: str) -> bool:
    # Whole: `/app` is no part of `https://example.com/app` or `/application`.
    return re.search(rf"(?<![\w.-]){re.escape(path)}(?![\w-])", text) is not None


def _counted(count: int, kind: str) -> str:
    return f"{count} value{'s' if count > 1 else ''} of the kind `{kind}`"


def _texts(name: str, text: str) -> Iterator[tuple[str | None, str]]:
    """The texts of a file, each with the name of the field it is the value of."""
    if not name.endswith(".json"):
        yield None, text
        return
    try:
        content = json.loads(text)
    except ValueError:
        yield None, text
        return
    # Elsewhere a long number is a limit of a tokenizer or a seed.
    yield from _values(content, None, numbers=name == PREFIX)


def _values(content: Any, field: str | None, *, numbers: bool) -> Iterator[tuple[str | None, str]]:
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield None, key
            yield from _values(value, key, numbers=numbers)
    elif isinstance(content, list):
        for value in content:
            yield from _values(value, field, numbers=numbers)
    elif isinstance(content, str) and is_json_text(content):
        # The arguments of a tool call are JSON in a string.
        yield from _values(json.loads(content), field, numbers=numbers)
    elif isinstance(content, str):
        yield field, content
    elif numbers and isinstance(content, int) and not isinstance(content, bool):
        yield field, str(content)
