"""vLLM drafting with heads: texts and log-probs stay the policy's, and guesses fare as in the reference decoder."""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from policies.load import load_adapter
from policies.mtp.acceptance import Acceptance
from policies.mtp.decode import Decoder
from policies.mtp.heads import FOLDER, load_heads
from policies.policy import Policy
from policies.weights import WeightUpdate, checksum
from rlhf_platform.errors import RecipeError, SyncError
from rlhf_platform.types import Prompt, Sample
from rollout.engine import RolloutEngine, SamplingSettings
from tests.drafting import LIMIT
from tests.parity import TOLERANCE, largest_difference

LAYOUT = "qwen3_asr"
GREEDY = SamplingSettings(samples=1, temperature=0.0, max_new_tokens=LIMIT, seed=0)
SAMPLED = SamplingSettings(samples=4, temperature=1.0, max_new_tokens=LIMIT, seed=3)


def engine_for(checkpoint: Path, heads: Path | None) -> RolloutEngine:
    return RolloutEngine(LAYOUT, checkpoint, "float32", 256, max_sequences=64, kv_cache_gib=0.2, heads=heads)


def policy_for(checkpoint: Path, temperature: float = 1.0) -> Policy:
    adapter = load_adapter(LAYOUT, checkpoint)
    return Policy(adapter, adapter.load_model(torch.float32), temperature, freeze_encoder=True).eval()


@pytest.fixture(scope="module")
def plain(drafting_checkpoint: Path) -> Iterator[RolloutEngine]:
    engine = engine_for(drafting_checkpoint, None)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def drafting(drafting_checkpoint: Path, plain: RolloutEngine) -> Iterator[RolloutEngine]:
    engine = engine_for(drafting_checkpoint, drafting_checkpoint / FOLDER)
    yield engine
    engine.close()


def referred(checkpoint: Path, clips: list[Prompt]) -> Acceptance:
    """What becomes of the guesses in the reference decoder."""
    adapter = load_adapter(LAYOUT, checkpoint)
    model = adapter.load_model(torch.float32).eval()
    decoder, seen = Decoder(adapter, model, load_heads(checkpoint / FOLDER, model).eval()), Acceptance()
    for clip in clips:
        seen.add(decoder.decode(clip, LIMIT).acceptance)
    return seen


def test_greedy_texts_are_those_of_plain_decoding_and_guesses_fare_as_in_the_reference_decoder(
    plain: RolloutEngine, drafting: RolloutEngine, drafting_checkpoint: Path, clips: list[Prompt]
) -> None:
    ours, theirs = drafting.generate(clips, GREEDY), plain.generate(clips, GREEDY)
    assert [s.tokens for s in ours] == [s.tokens for s in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=TOLERANCE)
    seen, expected = drafting.acceptance(), referred(drafting_checkpoint, clips)
    assert (seen.tried, seen.accepted) == (expected.tried, expected.accepted)
    assert 0 < sum(seen.accepted) < sum(seen.tried)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_behaviour_logprobs_are_those_of_the_distribution_sampled_from(
    drafting: RolloutEngine, drafting_checkpoint: Path, clips: list[Prompt], temperature: float
) -> None:
    policy = policy_for(drafting_checkpoint, temperature)
    samples = drafting.generate(clips, replace(SAMPLED, temperature=temperature))
    assert largest_difference(policy.adapter, policy, samples) < TOLERANCE
    assert sum(drafting.acceptance().accepted) > 0
    assert {token for s in samples for token in s.tokens} <= set(policy.adapter.completion_token_ids)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_sampled_texts_are_distributed_as_plain_ones(
    plain: RolloutEngine, drafting: RolloutEngine, clips: list[Prompt], temperature: float
) -> None:
    """Two samples of over 20,000 tokens each: tokens by clip, by place and by the token before, by chi-squared."""
    many = replace(SAMPLED, samples=260, temperature=temperature)
    found = [engine.generate(clips, many) for engine in (plain, drafting)]
    assert min(sum(len(s.tokens) for s in samples) for samples in found) > 20_000
    assert sum(drafting.acceptance().accepted) > 0
    # At temperature 1 these weights say almost anything: too few tokens recur at a place, or after the same token.
    for feature in (written,) if temperature == 1 else (written, placed, followed):
        statistic, degrees = two_sample(*(Counter(feature(samples)) for samples in found))
        assert degrees > 20
        # Mean and spread of chi-squared: 4.5 spreads are passed once in 100,000 times.
        assert statistic < degrees + 4.5 * (2 * degrees) ** 0.5


def written(samples: list[Sample]) -> Iterator[tuple[str, int]]:
    return ((s.prompt.id, token) for s in samples for token in s.tokens)


def placed(samples: list[Sample]) -> Iterator[tuple[str, int, int]]:
    return ((s.prompt.id, place, token) for s in samples for place, token in enumerate(s.tokens))


def followed(samples: list[Sample]) -> Iterator[tuple[str, int, int]]:
    return ((s.prompt.id, a, b) for s in samples for a, b in zip(s.tokens, s.tokens[1:], strict=False))


def two_sample(a: Counter, b: Counter, least: int = 20) -> tuple[float, int]:
    """Chi-squared of two counts of the same cells, and its degrees of freedom; rare cells are put together."""
    cells = [(a[key], b[key]) for key in a.keys() | b.keys()]
    common = [cell for cell in cells if sum(cell) >= least]
    rare = [sum(cell[i] for cell in cells if sum(cell) < least) for i in range(2)]
    common += [(rare[0], rare[1])] if sum(rare) >= least else []
    n, m = (sum(cell[i] for cell in common) for i in range(2))
    return sum((x * (m / n) ** 0.5 - y * (n / m) ** 0.5) ** 2 / (x + y) for x, y in common), len(common) - 1


def test_after_a_sync_guesses_and_texts_are_of_the_new_weights(
    drafting: RolloutEngine, drafting_checkpoint: Path, clips: list[Prompt]
) -> None:
    policy = policy_for(drafting_checkpoint)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    tensors = {name: value.clone() for name, value in policy.adapter.vllm_weights(policy.model)}
    assert drafting.load_weights(WeightUpdate(1, tensors, checksum(tensors))) == 1
    assert largest_difference(policy.adapter, policy, drafting.generate(clips, SAMPLED)) < TOLERANCE
    seen = Acceptance()
    texts = drafting.generate(clips, GREEDY)
    heads = load_heads_anyway(drafting_checkpoint, policy)
    decoder = Decoder(policy.adapter, policy.model, heads)
    for clip, text in zip(clips, texts, strict=True):
        decoded = decoder.decode(clip, LIMIT)
        assert decoded.tokens == text.tokens
        seen.add(decoded.acceptance)
    assert drafting.acceptance().accepted == seen.accepted

    # New heads are taken too: what the second block guesses comes of other weights.
    state = {name: value * (0.5 if name.startswith("blocks.1.") else 1.0) for name, value in heads.state_dict().items()}
    drafting.load_heads(WeightUpdate(1, state, checksum(state)))
    assert [s.tokens for s in drafting.generate(clips, GREEDY)] == [s.tokens for s in texts]
    heads.load_state_dict(state)
    seen = Acceptance()
    for clip in clips:
        seen.add(decoder.decode(clip, LIMIT).acceptance)
    assert drafting.acceptance().accepted == seen.accepted != [0, 0, 0]


def load_heads_anyway(checkpoint: Path, policy: Policy) -> torch.nn.Module:
    """The heads, although the weights have moved since."""
    adapter = policy.adapter
    return load_heads(checkpoint / FOLDER, adapter.load_model(torch.float32)).eval()


def test_a_vllm_that_cannot_draft_with_heads_is_refused(
    drafting_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "policies.mtp.vllm_worker", None)  # as if what it imports were not there
    with pytest.raises(RecipeError, match=r"rollout\.speculative is mtp: this vLLM .* cannot draft with heads"):
        engine_for(drafting_checkpoint, drafting_checkpoint / FOLDER)


def test_heads_that_were_altered_on_the_way_are_refused(drafting: RolloutEngine) -> None:
    with pytest.raises(SyncError, match="arrived with checksum"):
        drafting.load_heads(WeightUpdate(1, {"a": torch.zeros(2)}, 7))
