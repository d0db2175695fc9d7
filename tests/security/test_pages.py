"""Whatever came from traffic is text on every page: nothing in it is fetched, linked or rendered by who reads the page."""

from __future__ import annotations

import ast
from pathlib import Path

import dagster as dg
import orjson
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from flywheel_assets.assets.metadata import bullets, code_block, code_list, link, markdown_table
from flywheel_assets.core.markdown_text import harmless, harmless_cell, harmless_code
from flywheel_assets.resources.ingest import ingest
from tests.assets.conftest import Bench, bench, instance
from tests.e2e.own_traffic import write_ticket_records
from tests.fake_platform import right

__all__ = ["bench", "instance"]

PACKAGE = Path(__file__).parents[2] / "flywheel_assets"
PICTURE = "![p](http://evil.test/x.png)"
HOSTILE = (
    PICTURE,
    f"\\{PICTURE}",
    "!\\[p](http://evil.test/x.png)",
    "[![p][a]](http://evil.test)\n\n[a]: http://evil.test/x.png",
    "<img src=http://evil.test/x.png>",
    "\\<img src=http://evil.test/x.png>",
    "http://evil.test/auto",
    "www.evil.test",
    "a | ![p](http://evil.test/x.png) | b\n| c",
    "`` ` ![p](http://evil.test/x.png)",
    "```\n![p](http://evil.test/x.png)",
    "# heading",
    "\x1b[31mred\u202e",
)
# As Dagster's UI renders: GitHub's dialect, with addresses made into links.
MARKDOWN = MarkdownIt("gfm-like", {"html": True, "linkify": False})


def alive(markdown: str) -> list[str]:
    """What of a page is more than text: pictures that are fetched, links to elsewhere, HTML, headings."""
    found = []
    tokens = MARKDOWN.parse(markdown)
    for token in [*tokens, *(child for parent in tokens for child in parent.children or ())]:
        address = str(token.attrs.get("src") or token.attrs.get("href") or "")
        if token.type == "image" and not address.startswith("data:image/"):
            found.append(f"image {address}")
        elif (token.type == "link_open" and "evil" in address) or token.type in ("html_block", "html_inline"):
            found.append(f"{token.type} {address}{token.content}")
    return found


@given(st.sampled_from(HOSTILE) | st.text("![]()<>`|\\#:/wx.\n p", max_size=40))
def test_nothing_in_a_quoted_text_is_alive(text: str) -> None:
    live = f"{PICTURE}{text}{PICTURE}"
    for shown in (text, live):
        for page in (
            f"- {harmless(shown)}",
            str(bullets([shown]).value),
            str(code_list([shown]).value),
            str(code_block(shown, "json").value),
            markdown_table(["a", shown], [["x", shown], [shown, "y"]]),
            f"| a |\n| --- |\n| {harmless_cell(shown)} |",
            f"`{harmless_code(shown)}`",
        ):
            assert alive(page) == [], page
        # And no cell ends its row.
        assert len(markdown_table(["a"], [[shown]]).splitlines()) == 3
        assert all(char.isprintable() for char in harmless(shown))


def test_an_address_in_a_link_ends_no_link() -> None:
    (address,) = alive(str(link(f"http://here.test/>) {PICTURE}").value))
    assert address.startswith("link_open http://here.test/")


def test_every_page_goes_through_the_functions_that_make_text_harmless() -> None:
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            named = isinstance(node, ast.Attribute) and node.attr == "md"
            if named or (
                isinstance(node, ast.Attribute) and node.attr == "MarkdownMetadataValue" and "return" not in str(node)
            ):
                found.add(path.relative_to(PACKAGE).as_posix())
    makers = {path for path in found if "MetadataValue.md(" in (PACKAGE / path).read_text()}
    assert makers == {"assets/metadata.py"}


def test_no_page_of_a_turn_fetches_what_a_tool_is_called(bench: Bench) -> None:
    bench.platform.answers = right
    bench.content["candidates"] = [{"id": "small", "model": "small.gguf"}]
    path = write_ticket_records(bench.folder / "plain.jsonl", 120, workload="tickets")
    hostile = bench.folder / "hostile.jsonl"
    lines = []
    for number, line in enumerate(path.read_text().splitlines()):
        text = line.replace("refund_order", PICTURE).replace("printer", "<img src=http://evil.test/y.png>")
        record = orjson.loads(text)
        record["client_id"] = record["session_id"] = f"{PICTURE} {number % 7}"
        record["source"] = "traffic"
        record["request"]["metadata"] = {"domain": PICTURE}
        record["request"]["model"] = PICTURE
        lines.append(orjson.dumps(record))
    hostile.write_bytes(b"\n".join(lines))
    ingest([hostile], bench.flywheel.traces)
    bench.turn()
    pages = {}
    for record in bench.instance.get_event_records(dg.EventRecordsFilter(dg.DagsterEventType.ASSET_MATERIALIZATION)):
        event = record.asset_materialization
        assert event is not None
        for name, value in event.metadata.items():
            if isinstance(value, dg.MarkdownMetadataValue):
                pages[f"{event.asset_key.to_user_string()}: {name}"] = str(value.value)
    assert any("evil" in page for page in pages.values()), "no page shows the tool at all"
    assert {name: alive(page) for name, page in pages.items() if alive(page)} == {}
