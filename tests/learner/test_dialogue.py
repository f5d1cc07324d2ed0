"""Sessions in the learner: their clips are encoded once, their turns told apart, and law 5 holds for their prompts."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from policies.load import load_adapter
from policies.policy import Policy
from rlhf_platform.data.dialogue import Next, follow_up
from rlhf_platform.learner.clips import Clips
from rlhf_platform.learner.micro_batches import packed
from rlhf_platform.learner.process_group import Rendezvous, free_port
from rlhf_platform.learner.sft import TranscriptCollator
from rlhf_platform.recipe.algorithms import PPO
from rlhf_platform.recipe.schema import LearnerConfig
from rlhf_platform.types import Prompt, Sample, Scored, ScoredSample, StopReason
from tests.dialogues import dialogue
from tests.learner.test_law5 import TIGHT, WHOLE, Gradients, OneStep, assert_same, recipe_of


def sample_of(prompt: Prompt, number: int) -> Sample:
    tokens = tuple(40 + (7 * number + 3 * k) % 200 for k in range(2 + (5 * number) % 7))
    # The behaviour log-probs of another program: off by some tenths, so that importance weights are not 1.
    logprobs = tuple(-5.0 - 0.3 * math.sin(number + k) for k in range(len(tokens)))
    return Sample(prompt, tokens, logprobs, "", StopReason.EOS, 0)


def session(clips: list[Prompt]) -> list[Sample]:
    """Four samples of a first turn; two of them have a second turn each, and one of those a third."""
    first = [sample_of(dialogue(clips, 0), number) for number in range(4)]
    turns = [(first[0], 1, 4), (first[1], 1, 5)]
    later = [_after(sample, clips[turn], number) for sample, turn, number in turns]
    return [*first, *later, _after(later[0], clips[2], 6), sample_of(clips[3], 7)]


def _after(sample: Sample, clip: Prompt, number: int) -> Sample:
    return sample_of(follow_up(sample.prompt, "", sample.tokens, Next(clip.audio, "bravo", "echo")), number)


@pytest.fixture
def policy(tiny_checkpoint: Path) -> Policy:
    adapter = load_adapter("qwen3_asr", tiny_checkpoint)
    return Policy(adapter, adapter.load_model(torch.float32), 1.0, freeze_encoder=True).eval()


@torch.no_grad()
def test_clips_that_turns_share_are_encoded_once_and_turns_of_one_id_are_told_apart(
    policy: Policy, clips: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = session(clips)
    assert len({s.prompt.id for s in samples}) == 4  # both second turns have one id, and differ in what was replied
    alone = [policy(Clips(policy.adapter, policy, False).batch([s])[0])[0][0] for s in samples]
    passes: list[int] = []
    encode = policy.encode
    monkeypatch.setattr(policy, "encode", lambda batch: passes.append(len(batch.audio[0])) or encode(batch))
    kept = Clips(policy.adapter, policy, encode_once=True)
    for packing in (False, True):
        batch, audio = kept.batch(samples, packing)
        assert (len(batch.input_ids), len(batch.completion_ids)) == (5 if packing else 8, 8)
        logprobs, _ = policy(batch, audio)
        for ours, expected in zip(logprobs, alone, strict=True):
            torch.testing.assert_close(ours[: len(expected)], expected, rtol=0, atol=1e-5)
    assert passes == [1] * len(clips)


def test_a_budget_of_seconds_counts_every_clip_of_a_session(policy: Policy, clips: list[Prompt]) -> None:
    kept = Clips(policy.adapter, policy, encode_once=False)
    samples = [sample_of(replace(dialogue(clips[1:], 2), id=f"d{number}"), number) for number in range(4)]
    # 0.8 s are encoded as 1 s; with 1.3 and 2.9 s a session takes 3 times 2.9 s of padded audio.
    assert kept.seconds(samples[0].prompt) == pytest.approx([1.0, 1.3, 2.9])
    for seconds, sizes in ((17.5, [2, 2]), (17.3, [1, 1, 1, 1]), (26.2, [3, 1])):
        bins = packed(samples, kept, LearnerConfig(micro_batch_seconds=seconds), ranks_alike=False)
        assert [len(rows) for rows in bins] == sizes


@torch.no_grad()
def test_the_warm_start_teaches_each_reply_after_its_own_clips(policy: Policy, clips: list[Prompt]) -> None:
    prompts = [dialogue(clips, 2), dialogue(clips[1:], 1, reasoning="heard alpha"), dialogue(clips[::-1], 0)]
    collate = TranscriptCollator(policy.adapter, prompts, spec_augment=False)
    batch = collate([{"row": row} for row in range(3)])
    together = policy.model(**batch).logits
    for row, prompt in enumerate(prompts):
        target = policy.adapter.target(prompt)
        assert tuple(batch["labels"][row][batch["labels"][row] != -100].tolist()) == target
        alone = policy.model(**collate([{"row": row}])).logits[0]
        torch.testing.assert_close(together[row, : len(alone)], alone, rtol=0, atol=1e-4)


def _gradients(rank: int, port: int, model: Path, clips: list[Prompt], out: Path) -> None:
    torch.set_num_threads(1)
    meeting = Rendezvous(rank, 1, "127.0.0.1", port, timeout=120)
    scored = [ScoredSample(s, Scored(math.cos(i), {})) for i, s in enumerate(session(clips))]
    found = []
    for frozen in (True, False):
        recipe = recipe_of(PPO(minibatches=1, critic_learning_rate=1.0), 1)
        recipe = replace(recipe, learner=replace(recipe.learner, freeze_encoder=frozen))
        step = OneStep(recipe, model, meeting, scored)
        splits = [WHOLE, TIGHT, {**WHOLE, "packing": True}, {**TIGHT, "packing": False, "micro_batch_size": 1}]
        found.append([step.gradients(split) for split in splits])
    torch.save(found, out)
    torch.distributed.destroy_process_group()


def test_law_5_holds_for_prompts_of_several_clips(tiny_checkpoint: Path, clips: list[Prompt], tmp_path: Path) -> None:
    """PPO, whose critic hears the clips too; with the encoder frozen, so that its output is kept, and learning."""
    mp.spawn(_gradients, (free_port(), tiny_checkpoint, clips, tmp_path / "found.pt"), nprocs=1, join=True)
    found: list[list[Gradients]] = torch.load(tmp_path / "found.pt")
    frozen, learning = found
    assert len(learning[0]) > len(frozen[0])
    for whole, *splits in found:
        for gradients in splits:
            assert_same(whole, gradients)
