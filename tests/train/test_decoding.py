"""What the policy says to held-out clips, long ones included, from preparing the data to the evaluation."""

from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from rich.console import Console

from rlhf_platform.data.audio import load_audio
from rlhf_platform.data.manifest import Row, read_manifest, to_prompt, write_manifest
from rlhf_platform.data.prompts import Plan, build_prompts
from rlhf_platform.errors import DataError
from rlhf_platform.recipe.load import LoadedRecipe, load_recipe
from rlhf_platform.recipe.schema import TrackingConfig
from rlhf_platform.tracking.checkpoints import Checkpoints
from rlhf_platform.tracking.progress import Display
from rlhf_platform.tracking.run_dir import RunDir
from rlhf_platform.tracking.wandb_log import WandbLog
from rlhf_platform.train.context import RunContext
from rlhf_platform.train.decoding import decode
from rlhf_platform.train.measures import Hearing
from rlhf_platform.train.preparing.prepare import prepare_data
from rlhf_platform.types import Prompt, Sample, Scored, ScoredSample, StopReason

RATE = 16_000
WINDOW = 5.0


class Listeners:
    """In place of rollout workers: write down what they are asked; the n-th answer is `word n` and three tokens."""

    def __init__(self, stops: dict[int, StopReason] | None = None) -> None:
        self.asked: list[list[Prompt]] = []
        self.stops = stops or {}

    def answer(self, prompts: Sequence[Prompt]) -> list[Sample]:
        self.asked.append(list(prompts))
        return [self._answer(n, prompt) for n, prompt in enumerate(prompts, start=1)]

    def _answer(self, n: int, prompt: Prompt) -> Sample:
        stop = self.stops.get(n, StopReason.EOS)
        return Sample(prompt, (10 * n, 10 * n + 1, 2), (-n, -n - 0.5, -0.25), f"word {n} ", stop, 7)


class Judges:
    """In place of reward workers: a held-out answer is worth its number of tokens."""

    def evaluate(self, samples: Sequence[Sample]) -> list[ScoredSample]:
        return [ScoredSample(s, Scored(0.0, {"tokens": float(len(s.tokens))})) for s in samples]

    def score(self, samples: Sequence[Sample], step: int) -> tuple[list[ScoredSample], None]:
        return self.evaluate(samples), None


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Held out: two recorded prompts with a second's silence between, 6 s of silence, a short clip; one to learn."""
    folder = tmp_path_factory.mktemp("data")
    rows = [r for r in read_manifest(build_prompts(folder / "recorded", Plan(prompts=5))) if "clean" in r.id]
    spoken = [load_audio(row.audio) for row in rows]
    pause, silence = np.zeros(RATE, np.float32), np.zeros(6 * RATE, np.float32)
    clips = {
        "long": np.concatenate([spoken[0], pause, spoken[1]]),
        "silent": silence,
        "short": min(spoken, key=len),
        "learnt": min(spoken, key=len),
    }
    path, made = folder / "manifest.jsonl", []
    for name, samples in clips.items():
        sf.write(folder / f"{name}.wav", samples, RATE, subtype="PCM_16")
        split, seconds = ("train" if name == "learnt" else "heldout"), len(samples) / RATE
        row = Row(path, 1, name, folder / f"{name}.wav", f"word {name}", "en", "anna", seconds, split, "CC0-1.0")
        made.append(replace(row, text="", metadata={"speech": False}) if name == "silent" else row)
    write_manifest(path, made)
    return path


def recipe(folder: Path, manifest: Path, *overrides: str) -> LoadedRecipe:
    (folder / "r.yaml").write_text(
        f"name: a\ndata: {{manifest: {manifest}}}\nrewards: [{{fn: rewards.asr:wer_reward}}]\n"
    )
    given = [f"cache_dir={folder / 'cache'}", f"backbone.window={WINDOW}", "evaluation.long_form=vad", *overrides]
    return load_recipe(folder / "r.yaml", given)


def heldout(manifest: Path) -> list[Prompt]:
    return [to_prompt(row) for row in read_manifest(manifest) if row.split == "heldout"]


def test_each_clip_gets_one_sample_and_long_ones_that_of_their_pieces(tmp_path: Path, manifest: Path) -> None:
    long, silent, short = prompts = heldout(manifest)
    assert long.duration > WINDOW > short.duration
    listeners = Listeners()
    found = decode(listeners, prompts, recipe(tmp_path, manifest).recipe)  # type: ignore[arg-type]
    (asked,) = listeners.asked
    assert [prompt.id for prompt in asked] == ["long#1", "long#2", "short"]
    assert all(prompt.duration <= WINDOW for prompt in asked)
    assert found == [
        Sample(long, (10, 11, 20, 21, 2), (-1, -1.5, -2, -2.5, -0.25), "word 1 word 2", StopReason.EOS, 7),
        Sample(silent, (), (), "", StopReason.EOS, 7),
        Sample(short, (30, 31, 2), (-3, -3.5, -0.25), "word 3 ", StopReason.EOS, 7),
    ]


def test_a_piece_that_was_cut_off_cuts_off_the_whole(tmp_path: Path, manifest: Path) -> None:
    listeners = Listeners({1: StopReason.LENGTH})
    long = decode(listeners, heldout(manifest), recipe(tmp_path, manifest).recipe)[0]  # type: ignore[arg-type]
    assert (long.tokens, long.stop_reason) == ((10, 11, 2, 20, 21, 2), StopReason.LENGTH)
    assert len(long.logprobs) == len(long.tokens)


def test_no_model_is_asked_where_nobody_speaks(tmp_path: Path, manifest: Path) -> None:
    listeners, silent = Listeners(), heldout(manifest)[1]
    (found,) = decode(listeners, [silent], recipe(tmp_path, manifest).recipe)  # type: ignore[arg-type]
    assert (found.text, found.tokens, listeners.asked) == ("", (), [])


def test_without_the_key_clips_are_decoded_as_they_are(tmp_path: Path, manifest: Path) -> None:
    listeners, prompts = Listeners(), heldout(manifest)
    found = decode(listeners, prompts, recipe(tmp_path, manifest, "evaluation.long_form=none").recipe)  # type: ignore[arg-type]
    assert listeners.asked == [prompts]
    assert [sample.text for sample in found] == ["word 1 ", "word 2 ", "word 3 "]
    assert not (tmp_path / "cache").exists()


def test_the_evaluation_counts_a_long_clip_once_and_its_rewards_too(tmp_path: Path, manifest: Path) -> None:
    loaded = recipe(tmp_path, manifest)
    folder = RunDir.create(tmp_path, "a", 0)
    wandb = WandbLog(TrackingConfig(wandb="off"), "a", folder.path, {}, "id")
    run = RunContext(loaded, folder, Display(), wandb, Checkpoints(folder.path))
    result, measured = Hearing().evaluate(run, "before RL", Listeners(), Judges(), heldout(manifest), 0)  # type: ignore[arg-type]
    assert [(u.prompt_id, u.hypothesis, u.errors.errors) for u in result.utterances] == [
        ("long", "word 1 word 2", 3),
        ("silent", "", 0),
        ("short", "word 3 ", 1),
    ]
    assert measured == {"heldout_wer": result.total.wer, "heldout/tokens": pytest.approx((5 + 0 + 3) / 3)}


def test_long_clips_are_cut_as_the_data_are_prepared(tmp_path: Path, manifest: Path) -> None:
    said = StringIO()
    data = prepare_data(recipe(tmp_path, manifest).recipe, Display(Console(file=said, width=200)))
    assert [prompt.id for prompt in data.evaluation] == ["long", "silent", "short"]
    assert "long-form: 2 held-out clips cut into 2 pieces" in said.getvalue()
    assert len(list((tmp_path / "cache/pieces").iterdir())) == 2


def test_without_the_key_long_clips_are_refused(tmp_path: Path, manifest: Path) -> None:
    with pytest.raises(DataError, match=r"long\.wav lasts .* s, longer than the window of 5 s"):
        prepare_data(recipe(tmp_path, manifest, "evaluation.long_form=none").recipe, Display())


def test_what_is_learnt_from_may_not_be_long(tmp_path: Path, manifest: Path) -> None:
    swapped = ("data.train_split=heldout", "data.rl_split=heldout", "data.eval_split=train")
    with pytest.raises(DataError, match=r"long\.wav lasts .* s, longer than the window of 5 s"):
        prepare_data(recipe(tmp_path, manifest, *swapped).recipe, Display())


def test_a_split_without_speech_is_refused(tmp_path: Path, manifest: Path) -> None:
    rows = [row for row in read_manifest(manifest) if row.id in ("silent", "learnt")]
    quiet = manifest.parent / "quiet.jsonl"
    write_manifest(quiet, rows)
    with pytest.raises(DataError, match=r"data\.eval_split is 'heldout': no speech was found in any of its 1 clips"):
        prepare_data(recipe(tmp_path, quiet).recipe, Display())
