"""YAML that people write: read strictly, and bounded.

YAML itself is lenient where a person wants to know (the second of two equal keys wins) and generous where a file may be an
attack (nodes that refer to each other and unfold to billions). Every fault is a YamlFault of one sentence with its line.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

# Far beyond any flywheel.yaml: ours nests six levels deep.
_DEEPEST = 50
_MOST_NODES = 100_000
_MOST_CHARACTERS = 2_000_000


class YamlFault(ValueError):
    """What is wrong with a text, in a sentence."""


class _Loader(yaml.SafeLoader):
    """Refuses what would be lost silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping of which every key is there once."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise YamlFault(f"the key `{key.value}` stands twice in one block, again in {_line(key)}")
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """A value; what its type does not allow is said with its line."""
        try:
            return super().construct_object(node, deep=deep)
        except YamlFault:
            raise
        except (ValueError, OverflowError) as error:
            shown = str(node.value)[:40]
            raise YamlFault(f"`{shown}` in {_line(node)} is no value: {error}") from None


def read_yaml(text: str) -> Any:
    """The content of one YAML document; YamlFault says what is wrong with it, and where."""
    if len(text) > _MOST_CHARACTERS:
        raise YamlFault(f"it has {len(text):,} characters, more than the {_MOST_CHARACTERS:,} that are read")
    try:
        _refuse_deep(text)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if (nodes := _unfolded(node, {}, ())) > _MOST_NODES:
                raise YamlFault(f"its anchors unfold to {nodes:,} values, more than the {_MOST_NODES:,} that are read")
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        place = f" in line {error.problem_mark.line + 1}" if error.problem_mark is not None else ""
        raise YamlFault(f"{error.problem or error.context}{place}") from None
    except yaml.YAMLError as error:
        raise YamlFault(" ".join(str(error).split())) from None


def _refuse_deep(text: str) -> None:
    """Nesting is counted before anything is built, which would recurse."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _DEEPEST:
            line = event.start_mark.line + 1 if event.start_mark is not None else 1
            raise YamlFault(f"line {line} is nested more than {_DEEPEST} levels deep")


def _unfolded(node: yaml.Node, known: dict[int, int], above: tuple[int, ...]) -> int:
    """How many values a node unfolds to, each anchor counted wherever it is used."""
    if id(node) in above:
        raise YamlFault(f"an anchor in {_line(node)} holds itself")
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        inside = (id(node), *above)
        parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        known[id(node)] = 1 + sum(_unfolded(part, known, inside) for part in parts)
    return known[id(node)]


def _line(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}" if node.start_mark is not None else "the document"
