"""`whisper-1` by the rules of appendix C of 2212.04356, against an implementation that is not the one it uses."""

import csv
import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer as PackageNormalizer

from rlhf_platform.data.text import CHARACTER_LANGUAGES, NORMALIZERS, language_code, normalize, words
from rlhf_platform.data.whisper_text import NOT_OF_WHISPER

with (Path(__file__).parent / "whisper_cases.tsv").open(encoding="utf-8", newline="") as file:
    CASES = [tuple(row.values()) for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
"""Language, rule, text and what is expected of it, written down from the paper's rules and Whisper's own tests.

Where whisper-normalizer and transformers differ (four informal contractions), transformers follows Whisper's code. Both
lack what that code has learnt since: `half a million` as a number and `£ 20` as an amount.
"""

SPELLINGS = json.loads(files("whisper_normalizer").joinpath("normalizers/english.json").read_text("utf-8"))
ENGLISH = EnglishTextNormalizer(SPELLINGS)


def by_transformers(text: str, language: str) -> str:
    code = language_code(language)
    other = BasicTextNormalizer(split_letters=code in CHARACTER_LANGUAGES)
    return " ".join((ENGLISH if code == "en" else other)(text).split())


def test_there_are_many_cases_and_no_rule_is_there_twice() -> None:
    assert len(CASES) >= 220
    assert len({(language, text) for language, _, text, _ in CASES}) == len(CASES)


@pytest.mark.parametrize(("language", "rule", "text", "expected"), CASES)
def test_a_text_is_normalised_by_the_published_rules(language: str, rule: str, text: str, expected: str) -> None:
    assert normalize(text, language, "whisper-1") == expected, rule
    assert by_transformers(text, language) == expected, "the other implementation"
    assert words(text, language, "whisper-1") == expected.split()


def test_the_package_differs_from_whisper_in_four_contractions_alone() -> None:
    ours, theirs = PackageNormalizer(), ENGLISH
    assert ours.replacers.keys() - theirs.replacers.keys() == set(NOT_OF_WHISPER)
    assert {pattern: ours.replacers[pattern] for pattern in theirs.replacers} == theirs.replacers
    assert normalize("kinda", "en", "whisper-1") == "kinda"
    assert ours("kinda") == "kind of"


def test_every_british_spelling_of_the_list_becomes_the_american() -> None:
    # One entry of the published list ends in a stray HTML tag.
    plain = {british: american for british, american in SPELLINGS.items() if (british + american).isalpha()}
    assert len(plain) > 1500
    for british, american in plain.items():
        assert normalize(british, "en", "whisper-1") == by_transformers(american, "en")


def test_an_unknown_normaliser_is_refused_with_the_known_ones() -> None:
    assert list(NORMALIZERS) == ["plain-1", "whisper-1"]
    with pytest.raises(ValueError, match=r"normalizer 'whisper' is unknown; there are plain-1, whisper-1"):
        normalize("a", "en", "whisper")
    with pytest.raises(ValueError, match="normalizer '' is unknown"):
        words("a", "en", "")


def test_a_number_that_python_cannot_convert_is_left_to_the_basic_normaliser() -> None:
    assert normalize("two " + "7" * 4300, "en", "whisper-1") == "2 " + "7" * 4300
    assert normalize("two " + "7" * 4301, "en", "whisper-1") == "two " + "7" * 4301


def test_importing_text_and_rewards_imports_nothing_heavy() -> None:
    root = Path(__file__).parents[2]
    modules = [f"rewards.{path.stem}" for path in root.glob("rewards/asr*.py")]
    heavy = {"torch", "transformers", "ray", "whisper_normalizer", "py3langid"}
    code = f"import sys, {', '.join([*modules, 'rlhf_platform.data.text'])}; print({heavy} & sys.modules.keys())"
    ended = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert ended.stdout == "set()\n"
