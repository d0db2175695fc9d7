import importlib.util
from pathlib import Path

import pytest

from flywheel_assets.settings import Settings

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def generator():
    spec = importlib.util.spec_from_file_location("generate_settings", ROOT / "docs" / "generate_settings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_settings_page_says_what_the_settings_are(generator):
    assert generator.PAGE.read_text(encoding="utf-8") == generator.page(), "run `python docs/generate_settings.py`"


def test_every_key_says_what_it_means(generator):
    assert [name for name, field in generator.every_key() if not field.description] == []


def test_the_page_shows_every_block_and_nothing_that_is_no_setting(generator):
    page = generator.page()

    assert all(f"`{name}" in page for name, field in Settings.model_fields.items() if not field.exclude)
    assert "| `home` |" not in page
