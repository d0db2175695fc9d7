"""Scrubbing: what must go goes wherever it stands, what is useful stays, and nothing breaks."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel_assets.core.cleaning import CleaningPolicy, Entity, scrub_record
from flywheel_assets.core.cleaning.detect import find
from flywheel_assets.core.datasets import update_records
from flywheel_assets.core.records import Record, canonical_body, parse_content, parse_record
from tests.core.cleaning.values import generated
from tests.core.datasets.workbench import MAX_BYTES, NOW, call, log_line, stored

POLICY = CleaningPolicy()
# What looks like a number or a secret and is none.
USEFUL = (
    "Order 4821-9937-1120 shipped on 2024-03-15 at 10:30:45, total $1,299.99 (VAT 19%).",
    "uuid 123e4567-e89b-12d3-a456-426614174000, build 1.2.3.4, v10.0.19041.1, Chrome/120.0.6099.109",
    "The password must be at least 8 characters; Password: required; reset your password: click the link",
    "token count: 4096 tokens; max_tokens=512; api_key=os.environ['X'] password=None",
    "std::vector<int> abc::def, meeting 01/02/2024 - 03/02/2024 10:00-11:00, ISBN 978-3-16-148410-0",
    "price 10 000 000 EUR, basic understanding of bearer instruments, git@github.com:org/repo.git, 127.0.0.1:8080",
    "order 1234567890123 and invoice 20240315000123, timestamp 1750000000123, lat 52.5200066, lon 13.404954",
    "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16, commit 3f2504e04f8911d39a0c0305e82c3301, SKU AB-1234-5678-90",
    "tracking 1Z999AA10123456784, flight LH 400 on 2024-05-06, call get_weather(city) for 20 minutes",
)


def scrubbed(line: dict[str, Any], policy: CleaningPolicy = POLICY) -> dict[str, Any]:
    body = orjson.dumps(line)
    parsed = parse_content(body, max_bytes=MAX_BYTES, received_at=NOW)
    assert isinstance(parsed, tuple), parsed
    scrub_record(parsed[1], parsed[0].body, policy)
    return parsed[1]


def said(text: str, policy: CleaningPolicy = POLICY) -> str:
    content: str = scrubbed(log_line(1, messages=[{"role": "user", "content": text}]), policy)["request"]["messages"][0][
        "content"
    ]
    return content


def everything_in(folder: Path) -> bytes:
    """All bytes of a folder, segments decompressed block by block."""
    parts = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            parts.append(path.read_bytes())
            if path.suffix == ".zst":
                reader = zstandard.ZstdDecompressor().stream_reader(parts[-1], read_across_frames=True)
                parts.append(reader.read())
    return b"\n".join(parts)


@pytest.mark.parametrize("seed", range(3))
def test_no_secret_of_any_kind_is_left_in_a_records_folder_and_other_words_are(tmp_path: Path, seed: int) -> None:
    values = generated(seed)
    assert len(values) >= 30
    lines = []
    for n, (value, sentence) in enumerate(values.values()):
        arguments = {"city": "Bern", "note": sentence, "nested": [{"again": sentence}]}
        lines.append(
            log_line(
                n,
                messages=[
                    {"role": "system", "content": f"Known: {sentence}"},
                    {"role": "user", "content": f"{USEFUL[n % len(USEFUL)]} {sentence}"},
                    call("get_weather", arguments),
                    {"role": "tool", "tool_call_id": "call_1", "content": orjson.dumps(arguments).decode()},
                    {"role": "user", "content": [{"type": "text", "text": sentence}]},
                ],
                answer=call("get_weather", arguments),
                feedback={"score": 1, "correction": sentence},
                accepted_answers=[{"get_weather": {"note": [sentence]}}],
                client_id=f"desk {sentence}"[:200],
                extra={"deep": [sentence, {"deeper": sentence}]},
            )
        )
        lines.append(log_line(1000 + n, timestamp=f"{value[:40]}"))
    records = stored(lines)
    update_records(None, [records], tmp_path / "r", max_bytes=MAX_BYTES, received_at=NOW, cleaning=POLICY)
    content = everything_in(tmp_path / "r")
    for kind, (value, _) in values.items():
        for written in (value, orjson.dumps(value).decode()[1:-1], value.replace("\n", "\\\\n")):
            assert written.encode() not in content, kind
    for text in USEFUL:
        for word in text.replace("'", " ").split():
            assert orjson.dumps(word)[1:-1] in content, word


@pytest.mark.parametrize("seed", range(3))
def test_words_around_secrets_survive(seed: int) -> None:
    kept = words = 0
    for value, sentence in generated(seed).values():
        others = sentence.replace(value, " ").split()
        left = said(sentence)
        words += len(others)
        kept += sum(word in left for word in others)
    assert kept >= 0.95 * words


@pytest.mark.parametrize("text", USEFUL)
def test_useful_text_is_left_as_it_is(text: str) -> None:
    assert said(text) == text


def test_the_same_value_has_the_same_placeholder_wherever_it_stands() -> None:
    mail, other = "jane@example.org", "joe@example.org"
    line = log_line(
        1,
        messages=[{"role": "user", "content": f"I am {mail}, not {other}."}, call("get_weather", {"to": mail.upper()})],
        answer=call("get_weather", {"to": other}),
        feedback={"correction": call("get_weather", {"to": mail})},
        accepted_answers=[{"get_weather": {"to": [other]}}],
        extra=[mail],
    )
    record = scrubbed(line)
    messages = record["request"]["messages"]
    assert messages[0]["content"] == "I am <EMAIL_1>, not <EMAIL_2>."
    assert messages[1]["tool_calls"][0]["function"]["arguments"] == '{"to":"<EMAIL_1>"}'
    assert record["response"]["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] == '{"to":"<EMAIL_2>"}'
    assert record["feedback"]["correction"]["tool_calls"][0]["function"]["arguments"] == '{"to":"<EMAIL_1>"}'
    assert record["accepted_answers"] == [{"get_weather": {"to": ["<EMAIL_2>"]}}]
    assert record["extra"] == ["<EMAIL_1>"]


# What people and tools say in one turn: each value in a sentence that gives it away.
TURNS = st.lists(st.lists(st.sampled_from([said for _, said in generated(11).values()]), max_size=4), min_size=3, max_size=7)


def _turn(number: int, past: list[dict[str, Any]], answer: str, changes: dict[str, Any]) -> dict[str, Any]:
    """One call of a session: everything said before, and an answer that also calls a tool."""
    message = {**call("get_weather", {"note": answer}), "content": f"So: {answer}"}
    line = log_line(number, messages=past, answer=message, session_id="s", **changes)
    # What surrounds the conversation may hold values of its own, and others in every turn.
    line["request"] |= {"user": f"user{number}@example.org", "metadata": {"phone": f"+49 30 901820{number:02d}"}}
    return line


@settings(max_examples=60, deadline=None)
@given(turns=TURNS)
def test_a_value_keeps_its_placeholder_in_every_later_turn_of_the_conversation(turns: list[list[str]]) -> None:
    past: list[dict[str, Any]] = [{"role": "system", "content": "Ask security@example.org, never guess."}]
    shown: list[dict[str, Any]] = []
    for number, sentences in enumerate(turns):
        past.append({"role": "user", "content": " ".join(["And now?", *sentences[:2]])})
        changes = {"client_id": f"client{number}@example.org", "extra": sentences}
        line = scrubbed(_turn(number, copy.deepcopy(past), " ".join(["Done.", *sentences[2:]]), changes))
        answer = line["response"]["choices"][0]["message"]
        assert line["request"]["messages"][: len(shown)] == shown
        shown = [*line["request"]["messages"], answer]
        past.append(_turn(number, past, " ".join(["Done.", *sentences[2:]]), {})["response"]["choices"][0]["message"])
        past.append({"role": "tool", "tool_call_id": "call_1", "content": "ok"})


def test_what_surrounds_a_conversation_is_numbered_after_it() -> None:
    line = log_line(1, answer={"role": "assistant", "content": "Mail joe@example.org."}, client_id="ann@example.org")
    line["request"]["user"] = "jane@example.org"
    record = scrubbed(line)
    assert record["response"]["choices"][0]["message"]["content"] == "Mail <EMAIL_1>."
    assert (record["request"]["user"], record["client_id"]) == ("<EMAIL_2>", "<EMAIL_3>")


def test_schemas_are_numbered_in_one_order_whatever_the_order_of_their_fields() -> None:
    def schema(mail: str) -> dict[str, Any]:
        return {"type": "function", "function": {"name": "get_weather", "description": f"Ask {mail}@example.org"}}

    fields = {"tools": [schema("a")], "response_format": {"type": "json", "description": "b@example.org"}}
    fields["tool_choice"] = {**schema("c")}
    for order in (list(fields), list(reversed(fields))):
        line = log_line(1)
        line["request"] = {"messages": line["request"]["messages"], **{name: fields[name] for name in order}}
        request = scrubbed(copy.deepcopy(line))["request"]
        described = [request["tools"][0], request["response_format"], request["tool_choice"]]
        assert [str(schema).count(f"<EMAIL_{n}>") for n, schema in enumerate(described, 1)] == [1, 1, 1]


def test_a_secret_known_by_its_surroundings_also_goes_where_it_stands_alone() -> None:
    line = log_line(
        1,
        messages=[{"role": "user", "content": "my password is hunter-22x"}],
        answer={"role": "assistant", "content": "Noted, hunter-22x it is."},
    )
    assert scrubbed(line)["response"]["choices"][0]["message"]["content"] == "Noted, <PASSWORD_1> it is."


@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC"])
def test_short_basic_credentials_go_though_nothing_else_is_in_the_text(scheme: str) -> None:
    assert said(f"It says {scheme} dXNlcjpwYXNz there") == f"It says {scheme} <TOKEN_1> there"
    assert said("a basic dictionary") == "a basic dictionary"


def test_arguments_stay_json_and_otherwise_as_the_model_wrote_them() -> None:
    arguments = (
        '{ "a": 1.50,  "big": 123456789012345678901234567890, "mail": "x\\u0041@example.org", "card": 4111111111111111 }'
    )
    message = call("get_weather")
    message["tool_calls"][0]["function"]["arguments"] = arguments
    written = scrubbed(log_line(1, answer=message))["response"]["choices"][0]["message"]["tool_calls"][0]
    assert written["function"]["arguments"] == (
        '{ "a": 1.50,  "big": 123456789012345678901234567890, "mail": "<EMAIL_1>", "card": "<CARD_1>" }'
    )
    assert written["id"] == "call_1"


def test_the_name_of_a_field_tells_what_it_holds() -> None:
    arguments = {"password": "swordfish", "phoneNumber": "5551234567", "ssn": 123456789, "next_page_token": "abc123def456"}
    record = scrubbed(log_line(1, answer=call("get_weather", arguments)))
    written = record["response"]["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]
    assert orjson.loads(written) == {
        "password": "<PASSWORD_1>",
        "phoneNumber": "<PHONE_1>",
        "ssn": "<SSN_1>",
        "next_page_token": "abc123def456",
    }


def test_names_keys_and_ids_stay() -> None:
    line = log_line(1, id="jane@example.org", session_id="jane@example.org", extra={"jane@example.org": 1})
    record = scrubbed(line)
    assert (record["id"], record["workload_id"]) == ("jane@example.org", "w")
    assert record["session_id"] == "<EMAIL_1>"
    assert record["extra"] == {"jane@example.org": 1}
    assert record["request"]["tools"] == line["request"]["tools"]


def test_two_sessions_named_after_people_stay_two(tmp_path: Path) -> None:
    lines = [log_line(n, session_id=f"person{n}@example.org") for n in range(2)]
    summary = update_records(None, [stored(lines)], tmp_path / "r", max_bytes=MAX_BYTES, received_at=NOW, cleaning=POLICY)
    assert summary.scrubbed == {"email": 2}
    import pyarrow.parquet as pq

    sessions = pq.read_table(tmp_path / "r" / "index" / "00000.parquet")["session"].to_pylist()
    assert len(set(sessions)) == 2


def test_allowed_values_and_kinds_that_are_switched_off_stay() -> None:
    text = "support@acme.com, me@acme.com, 203.0.113.7"
    assert said(text, CleaningPolicy(allow=("Support@acme.com",))) == "support@acme.com, <EMAIL_1>, <IP_1>"
    assert said(text, CleaningPolicy(allow=(r"/.*@acme\.com/",))) == "support@acme.com, me@acme.com, <IP_1>"
    only_mail = CleaningPolicy(entities=frozenset({Entity.EMAIL}))
    assert said(text, only_mail) == "<EMAIL_1>, <EMAIL_2>, 203.0.113.7"


def test_placeholders_that_were_there_keep_their_numbers() -> None:
    assert said("<EMAIL_1> and jane@example.org") == "<EMAIL_1> and <EMAIL_2>"


def test_scrubbing_twice_is_scrubbing_once() -> None:
    for value, sentence in generated(9).values():
        once = scrubbed(log_line(1, messages=[{"role": "user", "content": sentence}], extra={"password": value}))
        again = copy.deepcopy(once)
        assert not scrub_record(again, orjson.dumps(once), POLICY)
        assert again == once


@pytest.mark.parametrize(
    "piece", ["a", "1", "1 ", "a@", "a@b.", "://a:", "password:", "DE12 ", "00 11 ", "eyJa.", "ab:", "sk-aa", '{"a":"']
)
def test_hostile_text_costs_no_more_than_its_length(piece: str) -> None:
    text = piece * (40_000 // len(piece))
    started = time.process_time()
    find(text)
    assert time.process_time() - started < 2


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.sampled_from([sentence for _, sentence in generated(5).values()]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(content=st.text(min_size=1), arguments=st.dictionaries(st.text(max_size=8), JSON, max_size=3), extra=JSON)
def test_any_record_stays_a_record(content: str, arguments: dict[str, Any], extra: Any) -> None:
    line = log_line(1, messages=[{"role": "user", "content": content}], extra=extra)
    line["response"]["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] = arguments
    try:
        body = orjson.dumps(line)
    except TypeError:
        return  # an integer or a surrogate that JSON here cannot hold
    parsed = parse_content(body, max_bytes=MAX_BYTES, received_at=NOW)
    if not isinstance(parsed, tuple):
        return
    scrub_record(parsed[1], parsed[0].body, POLICY)
    assert isinstance(parse_record(canonical_body(parsed[1])[0], max_bytes=MAX_BYTES * 2, received_at=NOW), Record)
