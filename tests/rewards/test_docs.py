"""The examples of docs/rewards.md do what the page says."""

import doctest
from pathlib import Path

import pytest


def test_the_repl_examples_run_as_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.chdir(root)
    # A fence right after an expected output would count as part of it.
    page = (root / "docs" / "rewards.md").read_text().replace("```", "")
    test = doctest.DocTestParser().get_doctest(page, {}, "rewards.md", "docs/rewards.md", 0)
    assert len(test.examples) == 8
    assert doctest.DocTestRunner().run(test).failed == 0
