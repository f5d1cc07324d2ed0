"""Finding and checking a reward function before anything runs."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rewards.plugin import RewardFunction, Term, check_rewards, load_reward, resolve, written
from rewards.types import RewardInput
from rlhf_platform.errors import RecipeError
from rlhf_platform.recipe.schema import RewardConfig

SAMPLE = RewardInput(prompt_id="p", text="alpha bravo")


def write(folder: Path, code: str) -> Path:
    (folder / "mine.py").write_text(code)
    return folder


def load(folder: Path, spec: str = "mine.py:reward", **keys: Any) -> RewardFunction:
    return load_reward(Term(RewardConfig(fn=spec, **keys), "reward", base_dir=folder))


def message(folder: Path, code: str, spec: str = "mine.py:reward", kwargs: dict[str, Any] | None = None) -> str:
    write(folder, code)
    with pytest.raises(RecipeError) as caught:
        check_rewards([RewardConfig(fn=spec, kwargs=kwargs or {})], folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_function_in_a_file_beside_the_recipe(tmp_path: Path) -> None:
    write(tmp_path, "def reward(sample, scale=1):\n    return scale * len(sample.text)\n")
    reward = load(tmp_path, kwargs={"scale": 2})
    assert reward.fn(SAMPLE) == 22
    assert not reward.batched
    assert not reward.asynchronous


def test_a_function_in_an_importable_module() -> None:
    reward = load(Path("/nowhere"), "rewards.asr:wer_reward")
    assert reward.fn(RewardInput(prompt_id="p", text="Alpha, bravo!", reference="alpha bravo")) == 1.0


def test_a_class_is_made_with_the_kwargs(tmp_path: Path) -> None:
    write(
        tmp_path,
        "class Reward:\n"
        "    def __init__(self, limit):\n        self.limit = limit\n"
        "    async def __call__(self, samples):\n        return [self.limit for s in samples]\n",
    )
    reward = load(tmp_path, "mine.py:Reward", kwargs={"limit": 7})
    assert reward.fn.limit == 7  # type: ignore[attr-defined]
    assert reward.batched
    assert reward.asynchronous


@pytest.mark.parametrize(
    ("parameter", "batched"),
    [
        ("samples", True),
        ("batch: list", True),
        ("batch: list[int]", True),
        ("batch: 'list[Unknown]'", True),
        ("batch: 'typing.List[Unknown]'", True),
        ("sample", False),
        ("sample: dict[str, list[int]]", False),
        ("sample: 'Listing'", False),
    ],
)
def test_the_first_parameter_says_whether_a_function_takes_a_batch(
    tmp_path: Path, parameter: str, batched: bool
) -> None:
    write(tmp_path, f"def reward({parameter}, *, scale=1): ...\n")
    assert load(tmp_path, kwargs={"scale": 2}).batched is batched
    (tmp_path / "heavy.py").write_text("import torch\n" + (tmp_path / "mine.py").read_text())
    assert written(Term(RewardConfig(fn="heavy.py:reward"), "reward", base_dir=tmp_path)).batched is batched


def test_terms_of_one_file_share_its_module_and_an_edit_is_seen(tmp_path: Path) -> None:
    write(tmp_path, "def one(sample): ...\ndef two(sample): ...\n")
    one, two = resolve("mine.py:one", tmp_path), resolve("mine.py:two", tmp_path)
    assert one.__globals__ is two.__globals__
    write(tmp_path, "def one(sample): return 1\n")
    assert resolve("mine.py:one", tmp_path)(SAMPLE) == 1


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    error = message(tmp_path, "", "other.py:reward")
    assert error.startswith("rewards[0].fn is 'other.py:reward'")
    assert str(tmp_path / "other.py") in error


def test_a_missing_name_comes_with_a_suggestion(tmp_path: Path) -> None:
    assert "did you mean 'brevity'?" in message(tmp_path, "def brevity(sample): ...", "mine.py:brevty")


def test_a_module_that_is_not_installed(tmp_path: Path) -> None:
    error = message(tmp_path, "", "no_such_package.sub:reward")
    assert "ModuleNotFoundError" in error
    assert "file.py:name" in error


@pytest.mark.parametrize("code", ["1 / 0", "import sys; sys.exit(3)", "def (", "raise ValueError('a\\nb')"])
def test_a_file_that_does_not_import_is_one_line(tmp_path: Path, code: str) -> None:
    assert "mine.py cannot be imported" in message(tmp_path, code)


@pytest.mark.parametrize("spec", ["mine.py", "mine.py:", ":reward", ""])
def test_a_spec_without_both_halves_says_how_to_write_it(tmp_path: Path, spec: str) -> None:
    assert "write `package.module:name` or `file.py:name`" in message(tmp_path, "", spec)


@pytest.mark.parametrize("code", ["reward = 3", "class reward: ..."])
def test_what_cannot_be_called_is_refused(tmp_path: Path, code: str) -> None:
    assert "not callable" in message(tmp_path, code)


@pytest.mark.parametrize(
    ("code", "kwargs"),
    [
        ("def reward(sample): ...", {"scale": 2}),
        ("def reward(sample, scale): ...", {}),
        ("def reward(sample): ...", {"sample": 2}),
        ("def reward(): ...", {}),
        ("class reward:\n  def __init__(self, a): ...\n  def __call__(self, sample): ...", {"b": 1}),
    ],
)
def test_kwargs_that_do_not_fit_are_refused(tmp_path: Path, code: str, kwargs: dict[str, Any]) -> None:
    assert message(tmp_path, code, kwargs=kwargs).startswith("rewards[0].kwargs: the signature (")


def test_a_call_method_without_a_sample_is_refused(tmp_path: Path) -> None:
    error = message(tmp_path, "class reward:\n  def __call__(self): ...")
    assert error.startswith("rewards[0].fn: the signature () does not take one sample in __call__")


def test_checking_makes_no_instance_but_loading_reports_one_that_cannot_be_made(tmp_path: Path) -> None:
    code = "class Reward:\n  def __init__(self): raise OSError('no model')\n  def __call__(self, sample): ...\n"
    configs = [RewardConfig(fn="mine.py:Reward")]
    check_rewards(configs, write(tmp_path, code))
    with pytest.raises(RecipeError, match=r"^rewards\[0\]\.fn: making Reward .* OSError: no model"):
        load_reward(Term(configs[0], "Reward", "rewards[0]", tmp_path))


def test_two_terms_need_two_names(tmp_path: Path) -> None:
    write(tmp_path, "def reward(sample): ...")
    configs = [RewardConfig(fn="mine.py:reward"), RewardConfig(fn="mine.py:reward")]
    with pytest.raises(RecipeError, match=r"^rewards\[1\]\.name is 'reward' like that of rewards\[0\]"):
        check_rewards(configs, tmp_path)
    check_rewards([configs[0], RewardConfig(fn="mine.py:reward", name="again")], tmp_path)


def test_no_reward_at_all_is_refused_rather_than_summed_to_zero(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"^rewards is empty"):
        check_rewards([], tmp_path)


HEAVY = "import torch\nimport transformers as t\n"


@pytest.mark.parametrize(
    ("code", "kwargs"),
    [
        ("def reward(sample): ...", {"scale": 2}),
        ("def reward(sample, /, scale): ...", {}),
        ("async def reward(samples, *, scale): ...", {}),
        ("class reward:\n  def __init__(self, a): ...\n  def __call__(self, sample): ...", {"b": 1}),
        ("class reward:\n  def __call__(self, sample): ...", {"b": 1}),
    ],
)
def test_a_module_of_heavy_imports_is_read_and_not_imported(tmp_path: Path, code: str, kwargs: dict[str, Any]) -> None:
    """The mistakes are told in the same words as those of one that is imported."""
    error = message(tmp_path, f"{HEAVY}raise OSError('imported')\n{code}", kwargs=kwargs)
    assert error == message(tmp_path, code, kwargs=kwargs)
    assert "does not take" in error


def test_what_source_alone_cannot_tell_is_imported(tmp_path: Path) -> None:
    for code in (
        "def made(): ...\nreward = made",
        "import functools\n@functools.cache\ndef reward(sample): ...",
        "class reward(dict):\n  def __call__(self, sample): ...",
        "if True:\n  def reward(sample): ...",
    ):
        assert "cannot be imported (OSError: imported)" in message(
            tmp_path, f"{HEAVY}raise OSError('imported')\n{code}"
        )


def test_a_heavy_package_that_is_not_installed_is_named(tmp_path: Path) -> None:
    error = message(tmp_path, "import tensorflow\ndef reward(sample): ...")
    assert "ModuleNotFoundError: No module named 'tensorflow'" in error


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("async def reward(batch: list[int]): ...", (True, True)),
        ("class reward:\n  async def __call__(self, sample): ...", (False, True)),
        ("class reward:\n  def __call__(self, samples): ...", (True, False)),
    ],
)
def test_source_tells_how_a_reward_is_called(tmp_path: Path, code: str, expected: tuple[bool, bool]) -> None:
    (tmp_path / "heavy.py").write_text(f"{HEAVY}{code}")
    (tmp_path / "mine.py").write_text(code)
    for file in ("heavy.py", "mine.py"):
        found = written(Term(RewardConfig(fn=f"{file}:reward"), "reward", base_dir=tmp_path))
        assert (found.batched, found.asynchronous) == expected


def test_checking_and_scoring_imports_neither_torch_nor_ray(tmp_path: Path) -> None:
    """Nor what a reward's own module imports: that is for its process."""
    write(tmp_path, f"{HEAVY}def reward(sample): ...")
    code = (
        "import sys; from pathlib import Path; from rewards.plugin import check_rewards\n"
        "from rewards.pool import RewardPool; from rlhf_platform.recipe.schema import RewardConfig\n"
        f"check_rewards([RewardConfig(fn='mine.py:reward')], Path({str(tmp_path)!r}))\n"
        "RewardPool.of('rewards.asr:wer_reward').close()\n"
        "print([m for m in ('torch', 'ray', 'transformers') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_an_error_about_keywords_names_them_and_keeps_their_values_to_itself(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def fn(sample):\n    return 1.0\n")
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, "mine.py:fn", kwargs={"token": "s3cret"})
    assert "token given" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_term_asks_its_judge_by_address_and_its_own_keywords_win() -> None:
    term = Term(RewardConfig(fn="a:b", judge="small", kwargs={"model": "mine"}), "b")
    judges = {"small": {"judge": "http://127.0.0.1:1/v1", "model": "theirs", "api_key_env": "KEY"}}
    assert term.asking(judges).keywords == {
        "judge": "http://127.0.0.1:1/v1",
        "model": "mine",
        "api_key_env": "KEY",
    }
    assert term.asking({}).keywords == {"judge": "small", "model": "mine"}
