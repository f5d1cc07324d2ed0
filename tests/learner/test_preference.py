"""TRL's trainers on our audio batches: their first loss against a hand calculation in float64, and what they learn."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from policies.load import load_adapter
from rlhf_platform.data.pairs import Answer, Pair, opinions
from rlhf_platform.errors import DataError
from rlhf_platform.learner.collators import OpinionCollator, PairCollator, answer_tokens
from rlhf_platform.learner.preference import Round, dpo_arguments, order
from rlhf_platform.recipe.preferences import DPO, IPO, KTO, PreferenceConfig
from rlhf_platform.recipe.schema import LoraConfig
from rlhf_platform.types import Prompt
from tests.layouts import LAYOUTS
from tests.learner.judged import Case, in_float64, logprobs, pairs_of, recipe_of, trained
from tests.tiny import write_checkpoint

pytestmark = pytest.mark.timeout(900)
"""The first test pays for all that is trained."""
BETA = 0.3
LOSSES: dict[str, PreferenceConfig] = {
    kind: DPO(loss_type=kind, beta=BETA, batch_size=4)
    for kind in ("sigmoid", "hinge", "ipo", "robust", "bco_pair", "sppo_hard", "apo_zero", "discopop")
}
ALL_LOSSES = DPO.__dataclass_fields__["loss_type"].metadata["choices"]
STEPS = 12


@pytest.fixture(scope="module")
def other_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reference whose log-probs differ from the policy's: of a policy by itself every first loss is log 2."""
    path = tmp_path_factory.mktemp("other") / "checkpoint"
    write_checkpoint(path, seed=1)
    return path


@pytest.fixture(scope="module")
def results(
    tiny_checkpoint: Path, other_checkpoint: Path, clips: list[Prompt], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[list[float], dict[str, float]]]:
    """Losses and metrics of every case below, all trained in one process."""
    folder = tmp_path_factory.mktemp("rounds")
    pairs = pairs_of(clips)

    def case(
        name: str,
        algorithm: PreferenceConfig,
        judged: Sequence[Pair] = pairs,
        steps: int = 1,
        reference: Path = other_checkpoint,
        **learner: object,
    ) -> Case:
        task = Round(str(tiny_checkpoint), str(reference), 0, steps, str(folder / name))
        return Case(recipe_of(algorithm, steps, **learner), task, judged)

    other_audio = [replace(p, prompt=replace(p.prompt, audio=clips[3 - i].audio)) for i, p in enumerate(pairs)]
    cases = {kind: case(kind, algorithm) for kind, algorithm in LOSSES.items()}
    cases |= {
        f"{kind} runs": case(kind, DPO(loss_type=kind, batch_size=4)) for kind in ALL_LOSSES if kind not in LOSSES
    }
    cases |= {
        "ipo by name": case("ipo_by_name", IPO(beta=BETA, batch_size=4)),
        "with sft": case("with_sft", DPO(beta=BETA, batch_size=4, sft_coef=0.5)),
        "kto": case("kto", KTO(beta=BETA, batch_size=8, desirable_weight=1.5)),
        "two forwards": case("two_forwards", DPO(beta=BETA, batch_size=4), micro_batch_size=4),
        "other audio": case("other_audio", DPO(beta=BETA, batch_size=4), other_audio),
        "learnt": case("learnt", DPO(batch_size=4), pairs, STEPS, tiny_checkpoint, schedule="linear"),
        "learnt by lora": case(
            "by_lora",
            DPO(batch_size=4),
            pairs,
            STEPS,
            tiny_checkpoint,
            lora=LoraConfig(rank=4),
            freeze_encoder=True,
            learning_rate=1e-2,
        ),
        "frozen encoder": case("frozen", DPO(batch_size=4), pairs, 2, tiny_checkpoint, freeze_encoder=True),
    }
    found = trained(cases, folder / "said.pt")
    return found | {"folder": ([], {"path": folder})}  # type: ignore[dict-item]


def log_ratios(policy: Path, reference: Path, pairs: Sequence[Pair]) -> list[tuple[Tensor, Tensor, int, int]]:
    """Policy - reference of each pair's chosen and rejected answer, summed, and their lengths."""
    (adapter, model), (_, other) = (in_float64("qwen3_asr", path) for path in (policy, reference))
    found = []
    for pair in pairs:
        answers = [answer_tokens(adapter, pair.prompt, a, "") for a in (pair.chosen, pair.rejected)]
        ratios = [
            (logprobs(adapter, model, pair.prompt, a) - logprobs(adapter, other, pair.prompt, a)) for a in answers
        ]
        found.append((ratios[0].sum(), ratios[1].sum(), *map(len, answers)))
    return found


HAND: dict[str, Callable[[Tensor, Tensor, int, int], Tensor]] = {
    "sigmoid": lambda w, r, m, n: -logsigmoid(BETA * (w - r)),
    "hinge": lambda w, r, m, n: (1 - BETA * (w - r)).clamp(min=0),
    "ipo": lambda w, r, m, n: (w / m - r / n - 1 / (2 * BETA)) ** 2,
    "ipo by name": lambda w, r, m, n: (w / m - r / n - 1 / (2 * BETA)) ** 2,
    "robust": lambda w, r, m, n: (0.1 * logsigmoid(-BETA * (w - r)) - 0.9 * logsigmoid(BETA * (w - r))) / 0.8,
    "bco_pair": lambda w, r, m, n: -logsigmoid(BETA * w) - logsigmoid(-BETA * r),
    "sppo_hard": lambda w, r, m, n: (w - 0.5 / BETA) ** 2 + (r + 0.5 / BETA) ** 2,
    "apo_zero": lambda w, r, m, n: 1 - (BETA * w).sigmoid() + (BETA * r).sigmoid(),
    "discopop": lambda w, r, m, n: (
        -logsigmoid(BETA * (w - r)) * (1 - (BETA * (w - r) / 0.05).sigmoid())
        + (-BETA * (w - r)).exp() * (BETA * (w - r) / 0.05).sigmoid()
    ),
}
"""The papers' losses of the log-ratios w of the chosen and r of the rejected answer, of m and n tokens."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", HAND)
def test_the_first_loss_is_the_papers_in_float64(
    kind: str, results: dict, tiny_checkpoint: Path, other_checkpoint: Path, clips: list[Prompt]
) -> None:
    losses = [HAND[kind](*each) for each in log_ratios(tiny_checkpoint, other_checkpoint, pairs_of(clips))]
    assert results[kind][0] == [pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)]


@pytest.mark.slow
def test_the_first_loss_of_kto_is_the_papers_in_float64(
    results: dict, tiny_checkpoint: Path, other_checkpoint: Path, clips: list[Prompt]
) -> None:
    """Equation 7 of 2402.01306, and the KL from each answer of the batch given to the next prompt."""
    (adapter, model), (_, other) = (in_float64("qwen3_asr", path) for path in (tiny_checkpoint, other_checkpoint))
    everything = list(opinions(pairs_of(clips)))

    def ratio(prompt: Prompt, answer: Answer) -> float:
        tokens = answer_tokens(adapter, prompt, answer, "")
        return float((logprobs(adapter, model, prompt, tokens) - logprobs(adapter, other, prompt, tokens)).sum())

    rows = order(everything, KTO(batch_size=8), Round("", "", 0, 1, ""), seed=0)
    assert sorted(rows) == list(range(8))
    batch = [everything[row] for row in rows]
    kl = max(0.0, sum(ratio(o.prompt, batch[i - 1].completion) for i, o in enumerate(batch)) / 8)
    assert kl > 0
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    losses = [
        1.5 * (1 - sigmoid(BETA * (ratio(o.prompt, o.completion) - kl)))
        if o.label
        else 1 - sigmoid(BETA * (kl - ratio(o.prompt, o.completion)))
        for o in batch
    ]
    assert results["kto"][0] == [pytest.approx(sum(losses) / 8, rel=1e-5)]


@pytest.mark.slow
def test_the_chosen_answers_own_likelihood_comes_on_top(
    results: dict, tiny_checkpoint: Path, clips: list[Prompt]
) -> None:
    adapter, model = in_float64("qwen3_asr", tiny_checkpoint)
    chosen = [logprobs(adapter, model, p, adapter.transcript_tokens(p.reference)) for p in clips]
    extra = -0.5 * float(torch.cat(chosen).mean())
    assert results["with sft"][0][0] - results["sigmoid"][0][0] == pytest.approx(extra, rel=1e-5)


@pytest.mark.slow
def test_every_loss_that_may_be_named_runs(results: dict) -> None:
    for kind in ALL_LOSSES:
        (loss,), _ = results[kind if kind in LOSSES else f"{kind} runs"]
        assert math.isfinite(loss)


@pytest.mark.slow
def test_the_loss_is_the_same_in_one_forward_and_in_two(results: dict) -> None:
    assert results["two forwards"][0] == pytest.approx(results["sigmoid"][0], rel=1e-5)


@pytest.mark.slow
def test_the_model_hears_the_audio(results: dict) -> None:
    assert abs(results["other audio"][0][0] - results["sigmoid"][0][0]) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["learnt", "learnt by lora"])
def test_training_makes_the_chosen_likelier_than_the_rejected(
    name: str, results: dict, tiny_checkpoint: Path, clips: list[Prompt]
) -> None:
    losses, metrics = results[name]
    assert losses[0] == pytest.approx(math.log(2), rel=1e-5)
    assert metrics["pair_accuracy"] == 1.0
    out = results["folder"][1]["path"] / {"learnt": "learnt", "learnt by lora": "by_lora"}[name]
    assert all(chosen > rejected + 1 for chosen, rejected, *_ in log_ratios(out, tiny_checkpoint, pairs_of(clips)))


@pytest.mark.slow
def test_the_learning_rate_is_the_recipes_over_all_rounds(results: dict) -> None:
    assert results["learnt"][1]["learning_rate"] == pytest.approx(1e-3 / STEPS)


@pytest.mark.slow
def test_a_frozen_encoder_stays(results: dict, tiny_checkpoint: Path) -> None:
    adapter = load_adapter("qwen3_asr", tiny_checkpoint)
    before = dict(adapter.load_model(torch.float32).named_parameters())
    after = load_adapter("qwen3_asr", results["folder"][1]["path"] / "frozen").load_model(torch.float32)
    moved = {name for name, weight in after.named_parameters() if not torch.equal(weight, before[name])}
    assert len(moved) > 10
    assert not any(adapter.is_encoder(name) for name in moved)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_two_ranks_have_the_losses_of_one(
    stage: int, tiny_checkpoint: Path, other_checkpoint: Path, clips: list[Prompt], tmp_path: Path
) -> None:
    def case(name: str, ranks: int, zero_stage: int) -> Case:
        recipe = recipe_of(DPO(batch_size=4), 4, workers=ranks, zero_stage=zero_stage, schedule="linear")
        task = Round(str(tiny_checkpoint), str(other_checkpoint), 0, 4, str(tmp_path / name))
        return Case(recipe, task, pairs_of(clips))

    alone = trained({"one": case("one", 1, 0)}, tmp_path / "one.pt")["one"]
    together = trained({"two": case("two", 2, stage)}, tmp_path / "two.pt")["two"]
    assert together[0] == pytest.approx(alone[0], rel=1e-4)
    assert together[1]["learning_rate"] == alone[1]["learning_rate"] == pytest.approx(1e-3 / 4)


@pytest.mark.parametrize("layout", [name for name, each in LAYOUTS.items() if each.adapter != "whisper"])
def test_a_batch_has_the_chosen_rows_first_and_learns_the_answers_alone(
    layout: str, clips: list[Prompt], tmp_path: Path
) -> None:
    LAYOUTS[layout].build(tmp_path, False)
    adapter = load_adapter(LAYOUTS[layout].adapter, tmp_path)
    speaks = LAYOUTS[layout].adapter in ("codec_lm", "orpheus")
    pairs = [replace(p, chosen=Answer(codec=(3, 1)), rejected=Answer(codec=(2,))) for p in pairs_of(clips)]
    pairs = pairs if speaks else pairs_of(clips)
    batch = PairCollator(adapter, pairs, "all")([{"row": 2}, {"row": 0}])
    expected = [pairs[2].chosen, pairs[0].chosen, pairs[2].rejected, pairs[0].rejected]
    for row, (pair, answer) in enumerate(zip([pairs[2], pairs[0]] * 2, expected, strict=True)):
        prompt, tokens = adapter.encode(pair.prompt), answer_tokens(adapter, pair.prompt, answer, "")
        size = len(prompt.token_ids) + len(tokens)
        assert tuple(batch["input_ids"][row, :size].tolist()) == (*prompt.token_ids, *tokens)
        assert batch["completion_mask"][row].nonzero().flatten().tolist() == list(range(len(prompt.token_ids), size))
        assert batch["attention_mask"][row].sum() == size
        if not speaks:
            features = prompt.clips[0].features
            assert torch.equal(batch["input_features"][row][..., : features.shape[-1]], features)


def test_tokens_of_the_other_modality_are_not_learnt(tmp_path: Path, clips: list[Prompt]) -> None:
    LAYOUTS["codec_llama"].build(tmp_path, False)
    adapter = load_adapter("codec_lm", tmp_path)
    pairs = [replace(p, chosen=Answer(codec=(3, 1)), rejected=Answer(codec=(2,))) for p in pairs_of(clips)]
    counts = {
        which: PairCollator(adapter, pairs, which)([{"row": 0}])["completion_mask"].sum(-1).tolist()
        for which in ("all", "text", "audio")
    }
    assert counts == {"all": [3, 2], "text": [0, 0], "audio": [3, 2]}


def test_kto_gives_each_answer_to_the_next_prompt(tiny_checkpoint: Path, clips: list[Prompt]) -> None:
    adapter = load_adapter("qwen3_asr", tiny_checkpoint)
    everything = list(opinions(pairs_of(clips)))
    batch = OpinionCollator(adapter, everything, "all", needs_kl=True)([{"row": 0}, {"row": 3}, {"row": 6}])
    assert batch["label"].tolist() == [True, False, True]
    for row, (prompt, answer) in enumerate([(0, 6), (3, 0), (6, 3)]):
        ids = adapter.encode(everything[prompt].prompt).token_ids
        tokens = answer_tokens(adapter, everything[answer].prompt, everything[answer].completion, "")
        size = len(ids) + len(tokens)
        assert tuple(batch["KL_input_ids"][row, :size].tolist()) == (*ids, *tokens)
        assert batch["KL_completion_mask"][row].sum() == len(tokens)


def test_an_answer_that_the_backbone_cannot_write_is_refused(
    tiny_checkpoint: Path, clips: list[Prompt], tmp_path: Path
) -> None:
    hears = load_adapter("qwen3_asr", tiny_checkpoint)
    audio = hears.tokenizer.convert_tokens_to_ids("<|audio_0|>")
    with pytest.raises(DataError, match=rf"^row 7: chosen has token {audio}, which this backbone never writes"):
        answer_tokens(hears, clips[0], Answer(tokens=(5, audio)), "row 7: chosen")
    LAYOUTS["codec_llama"].build(tmp_path, False)
    with pytest.raises(DataError, match=r"^row 2: rejected 'alpha' is text, and this backbone does not write that"):
        answer_tokens(load_adapter("codec_lm", tmp_path), clips[0], Answer("alpha"), "row 2: rejected")


def test_the_papers_smoothing_is_taken_where_the_recipe_says_none() -> None:
    assert dpo_arguments(DPO(loss_type="robust"))["label_smoothing"] == 0.1
    assert dpo_arguments(DPO(loss_type="exo_pair"))["label_smoothing"] == 1e-3
    assert dpo_arguments(DPO(loss_type="aot", label_smoothing=0.2))["label_smoothing"] == 0.2
    assert dpo_arguments(DPO())["label_smoothing"] == 0.0
