"""The data sets that come with the platform, by the name that a recipe gives in `data.demo`."""

from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

from rlhf_platform.data import dialogues, digits, prompts, speech
from rlhf_platform.data.dialogues import PRETRAINING as EXCHANGES
from rlhf_platform.data.dialogues import build_dialogues
from rlhf_platform.data.digits import build_digits
from rlhf_platform.data.prompts import build_prompts
from rlhf_platform.data.speech import PRETRAINING, build_speech
from rlhf_platform.errors import RecipeError

NAMES = ("digits", "recorded", "speech", "phrases", "dialogue", "exchanges")


def build(name: str, cache_dir: str | Path, progress: Callable[[int, int], None] = lambda done, total: None) -> Path:
    """The manifest of data set `name`, built below `cache_dir` unless it is there already.

    A set of another builder version lies in another folder. Raises `RecipeError` for an unknown name,
    `DataError` if a package that speaks or measures is not installed, or the archive of recordings is another.
    """
    return build_into(name, folder_of(name, cache_dir), progress)


def folder_of(name: str, cache_dir: str | Path) -> Path:
    """Where `build` puts data set `name`, whether or not it is there. Raises `RecipeError` for an unknown name."""
    _check(name)
    if name == "phrases":
        return Path(cache_dir, "data", f"{name}-{speech.build_key(PRETRAINING)}")
    if name == "exchanges":
        return Path(cache_dir, "data", f"{name}-{dialogues.build_key(EXCHANGES)}")
    key = {"digits": digits, "recorded": prompts, "speech": speech, "dialogue": dialogues}[name].build_key()
    return Path(cache_dir, "data", f"{name}-{key}")


def build_into(name: str, out_dir: str | Path, progress: Callable[[int, int], None] = lambda done, total: None) -> Path:
    """As `build`, in the very folder `out_dir`. Raises `DataError` if that holds anything else."""
    _check(name)
    if name == "digits":
        return build_digits(out_dir, progress=progress)
    if name == "recorded":
        return build_prompts(out_dir, progress=progress)
    if name == "phrases":
        return build_speech(out_dir, PRETRAINING, progress=progress)
    if name == "dialogue":
        return build_dialogues(out_dir, progress=progress)
    if name == "exchanges":
        return build_dialogues(out_dir, plan=EXCHANGES, progress=progress)
    return build_speech(out_dir, progress=progress)


def _check(name: str) -> None:
    if name not in NAMES:
        close = get_close_matches(name, NAMES, n=1)
        raise RecipeError(
            f"data.demo: no data set {name!r}; there is {', '.join(NAMES)}"
            + (f"; did you mean {close[0]!r}?" if close else "")
        )
