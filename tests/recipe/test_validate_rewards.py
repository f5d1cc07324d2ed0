"""What the checks of rewards let through; tests/recipe/bad/ holds what they refuse."""

from pathlib import Path

import pytest

from rlhf_platform.recipe.load import load_recipe
from rlhf_platform.recipe.validate import problems


@pytest.mark.parametrize(
    "rewards",
    [
        "{url: 'http://127.0.0.1:8000/score', token_env: TOKEN, send_audio: true, kwargs: {language: en}}",
        "{url: 'http://[::1]/score', token_env: TOKEN}",
        "{url: 'http://localhost/score', token_env: TOKEN}",
        "{url: 'https://judge.example/score', token_env: TOKEN}",
        "{url: 'http://judge.example/score'}",
        "{fn: 'a:b', gate: {if: 'b.wer < 0.2 and not c.d.e > 1', else: -1}}, {fn: 'a:c', name: c.d, weight: 0}",
        "{fn: 'a:b', shape: '1 - tanh(3 x)', schedule: 'linear(step, 1, 9)', range: [0, .inf], part: wer}",
        "{fn: 'a:b', gpus: 1, concurrency: 4}, {fn: 'a:c', gpus: 1}",
        "{fn: 'a:b', gpus: 0.3, concurrency: 3}",
        "{fn: 'a:b', weight: -1}, {fn: 'a:c', weight: 0}",
    ],
)
def test_what_is_right(rewards: str, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"name: a\ndata: {{demo: digits}}\ncluster: {{gpus: 4}}\nrewards: [{rewards}]\n")
    assert problems(load_recipe(recipe, ["scoring.normalize=terms"])) == []
    assert problems(load_recipe(recipe, ["scoring.combine=product", "scoring.normalize=total"])) == []


@pytest.mark.parametrize("url", ["ftp://host/x", "https://", "http://host:port/x", "http://[::1/x", "//host/x"])
def test_what_is_no_address_of_a_server(url: str, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"name: a\ndata: {{demo: digits}}\nrewards: [{{url: '{url}', name: a}}]\n")
    (line,) = problems(load_recipe(recipe))
    assert line.startswith(f"rewards[0].url is '{url}': expected http://host:port/path")
