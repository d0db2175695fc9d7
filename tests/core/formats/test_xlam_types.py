"""Parameter types in words."""

import pytest

from flywheel_assets.core.formats.xlam_types import json_type

INTEGERS = {"type": "array", "items": {"type": "integer"}}


@pytest.mark.parametrize(
    ("words", "schema", "optional"),
    [
        ("str", {"type": "string"}, False),
        ("str, optional", {"type": "string"}, True),
        ("int, default 3", {"type": "integer"}, True),
        ("float", {"type": "number"}, False),
        ("bool", {"type": "boolean"}, False),
        ("list", {"type": "array"}, False),
        ("List[str]", {"type": "array", "items": {"type": "string"}}, False),
        (
            "typing.List[List[int]], optional",
            {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
            True,
        ),
        ("Tuple[int, int]", {"type": "array", "items": {"type": "integer"}}, False),
        ("Tuple[int, str]", {"type": "array"}, False),
        ("Set[str]", {"type": "array", "items": {"type": "string"}, "uniqueItems": True}, False),
        ("Dict[str, float]", {"type": "object", "additionalProperties": {"type": "number"}}, False),
        ("dict", {"type": "object"}, False),
        ("Optional[int]", {"type": "integer"}, True),
        ("Union[int, float]", {"type": ["integer", "number"]}, False),
        ("int | None", {"type": "integer"}, True),
        ("Union[str, List[str]]", {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}, False),
        ("Any", {}, False),
        ("Callable[[float], float]", {}, False),
        ("", {}, False),
        ("]]][[[,,||", {}, False),
        ("List[" * 5000, {}, False),
    ],
)
def test_a_type_in_words_is_a_schema(words, schema, optional):
    assert json_type(words) == (schema, optional)
