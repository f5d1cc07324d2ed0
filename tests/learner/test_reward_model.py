"""The reward model: its first loss against a hand calculation in float64, what it learns, and that it loads again."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from policies.batch import make_batch
from policies.load import load_adapter
from policies.reward_model import RewardModel as Model
from policies.reward_model import load_reward_model
from rlhf_platform.data.pairs import Answer, Pair
from rlhf_platform.errors import RecipeError
from rlhf_platform.learner.preference import Round
from rlhf_platform.learner.reward_model import split_pairs
from rlhf_platform.recipe.preferences import RewardModel
from rlhf_platform.recipe.schema import LoraConfig
from rlhf_platform.types import Prompt
from tests.layouts import CASES, LAYOUTS
from tests.learner.judged import Case, pairs_of, recipe_of, trained

pytestmark = pytest.mark.timeout(900)
PLAIN = RewardModel(batch_size=4, heldout_share=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reward_models")


@pytest.fixture(scope="module")
def results(
    tiny_checkpoint: Path, clips: list[Prompt], folder: Path
) -> dict[str, tuple[list[float], dict[str, float]]]:
    """Losses and metrics of every case below, all trained in one process."""
    pairs = pairs_of(clips)

    def case(
        name: str, algorithm: RewardModel, judged: Sequence[Pair] = pairs, steps: int = 1, **learner: object
    ) -> Case:
        task = Round(str(tiny_checkpoint), str(tiny_checkpoint), 0, steps, str(folder / name))
        return Case(recipe_of(algorithm, steps, **learner), task, judged)

    margins = [replace(pair, margin=0.5 * pair.number) for pair in pairs]
    ties = [replace(pair, tie=pair.number == 2) for pair in pairs]
    other_audio = [replace(p, prompt=replace(p.prompt, audio=clips[3 - i].audio)) for i, p in enumerate(pairs)]
    held = replace(PLAIN, heldout_share=0.5)
    return trained(
        {
            "plain": case("plain", PLAIN),
            "margins": case("margins", replace(PLAIN, margin_coef=2.0), margins),
            "no margins": case("no_margins", replace(PLAIN, margin_coef=0.0), margins),
            "ties": case("ties", replace(PLAIN, tie_threshold=0.7), ties),
            "centred": case("centred", replace(PLAIN, center_coef=0.1)),
            "other audio": case("other_audio", PLAIN, other_audio),
            "two forwards": case("two_forwards", PLAIN, micro_batch_size=4),
            "learnt": case("learnt", PLAIN, steps=15),
            "by lora": case("by_lora", held, steps=2, lora=LoraConfig(rank=4), freeze_encoder=True),
        },
        folder / "said.pt",
    )


def rewards_of(checkpoint: Path, pairs: Sequence[Pair]) -> list[tuple[float, float]]:
    """Of each pair's answers, in float64, one at a time, by the model that training begins with."""
    adapter = load_adapter("qwen3_asr", checkpoint)
    single = Model(adapter, adapter.load_model(torch.float32), seed=0).value_head.weight.detach().double()
    backbone = adapter.load_model(torch.float64).eval()
    found = []
    for pair in pairs:
        both = []
        for answer in (pair.chosen, pair.rejected):
            encoded = adapter.encode(pair.prompt)
            tokens = adapter.transcript_tokens(str(answer.text))
            batch = make_batch([encoded], [0], [tokens], adapter.tokenizer.pad_token_id)
            inputs = adapter.model_inputs(batch, torch.full_like(batch.input_ids, -100))
            inputs["input_features"] = inputs["input_features"].double()
            del inputs["labels"]
            with torch.no_grad():
                last = backbone.base_model(**inputs).last_hidden_state[0, -1]
            both.append(float(single[0] @ last))
        found.append((both[0], both[1]))
    return found


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


@pytest.mark.slow
def test_the_first_losses_are_those_of_a_hand_calculation(
    results: dict, tiny_checkpoint: Path, clips: list[Prompt]
) -> None:
    rewards = rewards_of(tiny_checkpoint, pairs_of(clips))
    differences = [chosen - rejected for chosen, rejected in rewards]
    plain = -sum(map(log_sigmoid, differences)) / 4
    with_margin = -sum(log_sigmoid(d - 2.0 * 0.5 * n) for n, d in enumerate(differences, start=1)) / 4
    tie = differences[1]
    tied = -math.log((math.exp(1.4) - 1) / ((1 + math.exp(0.7 - tie)) * (1 + math.exp(0.7 + tie))))
    with_ties = (tied - sum(log_sigmoid(d - 0.7) for n, d in enumerate(differences) if n != 1)) / 4
    centred = plain + 0.1 * sum((chosen + rejected) ** 2 for chosen, rejected in rewards) / 4
    for name, expected in {
        "plain": plain,
        "no margins": plain,
        "margins": with_margin,
        "ties": with_ties,
        "centred": centred,
        "two forwards": plain,
    }.items():
        assert results[name][0] == [pytest.approx(expected, rel=1e-5)], name


@pytest.mark.slow
def test_the_model_hears_the_audio(results: dict) -> None:
    assert abs(results["other audio"][0][0] - results["plain"][0][0]) > 1e-3


@pytest.mark.slow
def test_it_learns_what_was_chosen_and_is_loaded_as_it_was_saved(
    results: dict, clips: list[Prompt], folder: Path
) -> None:
    losses, metrics = results["learnt"]
    assert losses[-1] < losses[0]
    assert metrics["pair_accuracy"] == 1.0
    model = load_reward_model(folder / "learnt")
    texts = [(pair.chosen.text, pair.rejected.text) for pair in pairs_of(clips)]
    chosen, rejected = (
        model.rewards(clips, [model.adapter.transcript_tokens(str(text)) for text in side])
        for side in zip(*texts, strict=True)
    )
    assert all(better > worse for better, worse in zip(chosen, rejected, strict=True))


@pytest.mark.slow
def test_with_lora_the_head_learns_too_and_pairs_are_held_out(
    results: dict, tiny_checkpoint: Path, folder: Path
) -> None:
    _, metrics = results["by lora"]
    assert metrics["heldout_pair_accuracy"] in (0.0, 0.5, 1.0)
    start = load_adapter("qwen3_asr", tiny_checkpoint)
    head = Model(start, start.load_model(torch.float32), seed=0).value_head.weight
    model = load_reward_model(folder / "by_lora")
    assert not torch.equal(model.value_head.weight, head)
    before = dict(start.load_model(torch.float32).named_parameters())
    moved = {name for name, p in model.model.named_parameters() if not torch.equal(p, before[name])}
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in moved} == set(start.lora_targets)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_two_ranks_have_the_losses_of_one(
    stage: int, tiny_checkpoint: Path, clips: list[Prompt], tmp_path: Path
) -> None:
    def case(name: str, ranks: int, zero_stage: int) -> Case:
        recipe = recipe_of(replace(PLAIN, heldout_share=0.25), 3, workers=ranks, zero_stage=zero_stage)
        task = Round(str(tiny_checkpoint), str(tiny_checkpoint), 0, 3, str(tmp_path / name))
        return Case(recipe, task, pairs_of(clips))

    losses, metrics = trained({"one": case("one", 1, 0)}, tmp_path / "one.pt")["one"]
    together, over_two = trained({"two": case("two", 2, stage)}, tmp_path / "two.pt")["two"]
    assert together == pytest.approx(losses, rel=1e-4)
    assert over_two["heldout_pair_accuracy"] == metrics["heldout_pair_accuracy"]


@pytest.mark.parametrize(("layout", "tied"), CASES)
def test_a_saved_model_gives_the_same_rewards_in_every_layout(
    layout: str, tied: bool, clips: list[Prompt], tmp_path: Path
) -> None:
    LAYOUTS[layout].build(tmp_path / "start", tied)
    adapter = load_adapter(LAYOUTS[layout].adapter, tmp_path / "start")
    model = Model(adapter, adapter.load_model(torch.float32), seed=3).eval()
    model.save(LAYOUTS[layout].adapter, tmp_path / "saved")
    some = adapter.completion_token_ids
    answers = [(some[1], some[2]), (some[0],), (some[3], some[1], some[2]), (some[2], some[2])]
    together = model.rewards(clips, answers)
    assert load_reward_model(tmp_path / "saved").rewards(clips, answers) == pytest.approx(together, abs=1e-6)
    # Padding says nothing: each answer by itself has the same reward.
    assert [model.rewards([clip], [answer])[0] for clip, answer in zip(clips, answers, strict=True)] == pytest.approx(
        together, abs=1e-5
    )
    assert len(set(together)) == 4


def test_a_folder_without_a_reward_model_is_refused(tiny_checkpoint: Path) -> None:
    with pytest.raises(RecipeError, match=r"no reward model in it, value_head\.json is missing; train one"):
        load_reward_model(tiny_checkpoint)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.floats(0, 0.9), st.integers(0, 5))
def test_no_prompt_is_learnt_from_and_measured_on(prompts: list[int], share: float, seed: int) -> None:
    pairs = [
        Pair(line, Prompt(f"p{i}", "a.wav", "x", "en"), Answer("a"), Answer("b"))
        for line, i in enumerate(prompts, start=1)
    ]
    learnt, held_out = split_pairs(pairs, share, seed)
    assert sorted(p.number for p in learnt + held_out) == [p.number for p in pairs]
    assert learnt
    assert not {p.prompt.id for p in learnt} & {p.prompt.id for p in held_out}
    count = len(set(prompts))
    assert len({p.prompt.id for p in held_out}) == min(round(share * count), count - 1)
