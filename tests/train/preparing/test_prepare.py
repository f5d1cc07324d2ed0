"""What a checkpoint must have for a recipe, told before any actor starts; and the copy with the recipe's window."""

from pathlib import Path

import pytest

from policies.load import load_adapter
from rlhf_platform.errors import RecipeError
from rlhf_platform.recipe.load import load_recipe
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.tracking.progress import Display
from rlhf_platform.train.preparing.prepare import Data, prepare_model
from tests.layouts import WHISPER_WINDOW, build_whisper

NO_DATA = Data([], [], [], "")


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whisper") / "checkpoint"
    build_whisper(path, tied=True)
    return path


def recipe_for(folder: Path, checkpoint: Path, **keys: object) -> Recipe:
    (folder / "r.yaml").write_text("name: a\ndata: {demo: digits}\nrewards: [{fn: rewards.asr:wer_reward}]\n")
    wanted = {
        "backbone.adapter": "whisper",
        "backbone.path": checkpoint,
        "backbone.window": WHISPER_WINDOW,
        "rollout.max_tokens": 64,
        "cache_dir": folder / "cache",
    }
    return load_recipe(folder / "r.yaml", [f"{key}={value}" for key, value in (wanted | keys).items()]).recipe


def test_a_checkpoint_with_the_recipes_window_is_taken_as_it_is(whisper: Path, tmp_path: Path) -> None:
    assert prepare_model(recipe_for(tmp_path, whisper), NO_DATA, Display()) == str(whisper)


def test_a_shorter_window_makes_a_copy_once(whisper: Path, tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path, whisper, **{"backbone.window": 2})
    cut = prepare_model(recipe, NO_DATA, Display())
    assert load_adapter("whisper", cut).window() == 2
    made = Path(cut, "model.safetensors").stat().st_mtime_ns
    assert prepare_model(recipe, NO_DATA, Display()) == cut
    assert Path(cut, "model.safetensors").stat().st_mtime_ns == made


@pytest.mark.parametrize(
    ("keys", "refusal"),
    [
        ({"backbone.window": 6}, r"^backbone\.window is 6: the positions of \S+ cover 4 s; lower it$"),
        ({"backbone.window": 2.5}, r"^backbone\.window is 2\.5: this layout's window is whole seconds; 3$"),
        ({"rollout.max_tokens": 65}, r"^rollout\.max_tokens is 65: the decoder of \S+ has 64 positions; lower it"),
        ({"backbone.adapter": "qwen3_asr"}, r"^backbone\.adapter is qwen3_asr: \S+ is a checkpoint of whisper"),
    ],
)
def test_what_the_checkpoint_does_not_cover_is_refused(
    keys: dict[str, object], refusal: str, whisper: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=refusal):
        prepare_model(recipe_for(tmp_path, whisper, **keys), NO_DATA, Display())
    assert not (tmp_path / "cache").exists() or not list((tmp_path / "cache" / "backbone").iterdir())
