"""Every key says what it is, and the page of keys is that of the schema."""

from pathlib import Path

from rlhf_platform.recipe.document import docstrings, document
from rlhf_platform.recipe.keys import every_key, keys_of
from rlhf_platform.recipe.schema import Recipe

ROOT = Path(__file__).parents[2]


def sections(section: type = Recipe) -> list[type]:
    inner = [key.section or key.item for key in keys_of(section).values() if key.section or key.item]
    return [section, *(found for one in inner for found in sections(one))]


def test_every_key_has_a_docstring() -> None:
    silent = [f"{one.__name__}.{name}" for one in sections() for name in keys_of(one) if name not in docstrings(one)]
    assert silent == []


def test_the_committed_page_of_keys_is_up_to_date() -> None:
    committed = (ROOT / "docs/recipe_keys.md").read_text("utf-8")
    assert committed == document(), "run `python -m rlhf_platform.recipe.document > docs/recipe_keys.md`"


def test_every_key_is_in_the_page() -> None:
    assert [key for key in every_key() if f"`{key}`" not in document()] == []
