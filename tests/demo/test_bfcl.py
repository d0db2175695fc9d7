import json

import pytest

from flywheel_assets.demo.bfcl import json_schema, read_questions, tool_name
from flywheel_assets.demo.fetch import DemoError

NUMBERS = {"a": {"type": "float", "description": "One."}, "b": {"type": "integer", "description": "Other."}}


def one(wheel, category="simple_python"):
    (found,) = read_questions(wheel, category)
    return found


def test_python_type_names_become_json_schema_at_every_depth():
    schema = {
        "type": "dict",
        "required": ["type"],
        "properties": {
            "type": {"type": "string", "description": "A parameter that is called type.", "optional": True},
            "box": {"type": "tuple", "items": {"type": "float"}, "required": True},
            "nested": {"type": "dict", "properties": {"rows": {"type": "array", "items": {"type": "dict"}}}},
            "free": {"type": "any", "default": None},
        },
    }

    assert json_schema(schema) == {
        "type": "object",
        "required": ["type"],
        "properties": {
            "type": {"type": "string", "description": "A parameter that is called type."},
            "box": {"type": "array", "items": {"type": "number"}},
            "nested": {"type": "object", "properties": {"rows": {"type": "array", "items": {"type": "object"}}}},
            "free": {"default": None},
        },
    }


@pytest.mark.parametrize("name", ["math.factorial", "requests.get", "a b:c", "plain_name"])
def test_every_tool_name_is_one_an_openai_endpoint_accepts(name):
    assert tool_name(name) == name.replace(".", "_").replace(" ", "_").replace(":", "_")


def test_a_dotted_name_is_the_same_in_tools_reference_and_accepted_answers(write_bfcl, make_question, make_function):
    row = make_question("q1", "Add 1 and 2.", make_function("math.add", NUMBERS, ["a", "b"]))
    found = one(write_bfcl(simple_python=[(row, {"math.add": {"a": [1, 1.0], "b": [2]}})]))

    assert found.tool_names == ("math_add",)
    assert [call.name for call in found.calls] == ["math_add"]
    assert found.accepted == ({"math_add": {"a": [1, 1.0], "b": [2]}},)


def test_the_reference_is_the_first_accepted_value_and_leaves_out_what_may_be_absent(
    write_bfcl, make_question, make_function
):
    properties = NUMBERS | {"unit": {"type": "string"}, "digits": {"type": "integer"}}
    row = make_question("q1", "Add.", make_function("add", properties, ["a", "b"]))
    accepted = {"add": {"a": [1.5, 2], "b": ["", 2], "unit": ["m", ""], "digits": ["", 3]}}

    assert json.loads(one(write_bfcl(simple_python=[(row, accepted)])).calls[0].arguments) == {"a": 1.5, "b": 2, "unit": "m"}


def test_an_accepted_value_that_its_own_schema_forbids_is_never_the_reference(write_bfcl, make_question, make_function):
    properties = {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["C", "F"]}}
    row = make_question("q1", "Weather?", make_function("weather", properties, ["city", "unit"]))
    accepted = {"weather": {"city": [None, "Oslo"], "unit": ["celsius", "C"]}}

    assert json.loads(one(write_bfcl(simple_python=[(row, accepted)])).calls[0].arguments) == {"city": "Oslo", "unit": "C"}


def test_accepted_values_inside_dictionaries_and_lists_of_them_are_resolved(write_bfcl, make_question, make_function):
    properties = {"body": {"type": "dict"}, "people": {"type": "array", "items": {"type": "dict"}}}
    row = make_question("q1", "Do it.", make_function("act", properties, ["body"]))
    accepted = {
        "act": {
            "body": [{"mode": ["COOL", "cool"], "wind": ["", "MID"]}],
            "people": [[{"name": ["Li"], "age": [18]}, {"name": ["Mo"], "age": ["", 3]}]],
        }
    }

    assert json.loads(one(write_bfcl(simple_python=[(row, accepted)])).calls[0].arguments) == {
        "body": {"mode": "COOL"},
        "people": [{"name": "Li", "age": 18}, {"name": "Mo"}],
    }


@pytest.mark.parametrize(
    "accepted",
    [
        {"add": {"a": [1]}},  # a required parameter without a value
        {"add": {"a": [1], "b": [2], "c": [3]}},  # a parameter nobody declared
        {"add": {"a": ["one"], "b": [2]}},  # text for a number
        {"add": {"a": [], "b": [2]}},  # nothing is accepted
        {"subtract": {"a": [1], "b": [2]}},  # a function that is not offered
    ],
)
def test_a_question_whose_answer_contradicts_its_schema_is_left_out(write_bfcl, make_question, make_function, accepted):
    row = make_question("q1", "Add.", make_function("add", NUMBERS, ["a", "b"]))

    assert list(read_questions(write_bfcl(simple_python=[(row, accepted)]), "simple_python")) == []


def test_functions_whose_names_clash_once_mapped_are_left_out(write_bfcl, make_question, make_function):
    row = make_question("q1", "Add.", make_function("math.add"), make_function("math_add"))

    assert list(read_questions(write_bfcl(simple_python=[(row, {"math.add": {}})]), "simple_python")) == []


def test_a_question_that_no_function_serves_has_no_call(write_bfcl, make_question, make_function):
    found = one(write_bfcl(irrelevance=[(make_question("q1", "Sing.", make_function("add")), None)]), "irrelevance")

    assert found.calls == ()
    assert found.accepted is None


def test_unusual_line_separators_inside_a_question_do_not_cut_it(write_bfcl, make_question, make_function):
    row = make_question("q1", "First\u2028second\x85third", make_function("add"))

    assert one(write_bfcl(irrelevance=[(row, None)]), "irrelevance").text == "First\u2028second\x85third"


def test_a_wheel_without_the_category_is_a_clear_error(write_bfcl, make_question):
    wheel = write_bfcl(irrelevance=[])

    with pytest.raises(DemoError, match=r"holds no .*BFCL_v4_multiple\.json.*Delete it and run again"):
        list(read_questions(wheel, "multiple"))


def test_a_file_that_is_no_wheel_is_a_clear_error(tmp_path):
    (tmp_path / "bfcl.whl").write_bytes(b"not a zip file")

    with pytest.raises(DemoError, match=r"bfcl\.whl cannot be read"):
        list(read_questions(tmp_path / "bfcl.whl", "multiple"))
