"""A reward that does everything wrong at once, as a step of a run meets it."""

import random
from collections import Counter
from pathlib import Path

import pytest

from rewards.algebra import combine
from rewards.plugin import terms_of
from rewards.processes.batch import InputBatch, PackedBatch
from rewards.score import Scorer
from rlhf_platform.recipe.schema import RewardConfig, ScoringConfig
from rlhf_platform.train.failures import failure_metrics
from rlhf_platform.types import Failed, Prompt, Sample, Scored, ScoredSample, StopReason

ILLS = {"sleep": 5, "raise": 15, "segfault": 5, "nan": 5, "eat": 5}
"""Of a hundred samples."""
EXPECTED = Counter(timeout=5, raised=15, crashed=10, not_a_number=5)
ENOUGH = 300.0
"""Seconds; the timeouts of all that hangs and the restarts of all that dies need a tenth."""
ONE = """
import ctypes, time

def one(sample):
    match sample.text:
        case "sleep":
            time.sleep(1000)
        case "raise":
            raise RuntimeError("no")
        case "segfault":
            ctypes.string_at(0)
        case "nan":
            return float("nan")
        case "eat":
            eaten = []
            while True:
                eaten.append(b"x" * 20_000_000)
    return float(sample.text)

"""
TIMEOUT = 3.0
"""Seconds: a busy machine needs one to give a process the memory at which it is killed."""
FORMS = {
    "sync": "def reward(sample):\n    return one(sample)\n",
    "async": "async def reward(sample):\n    return one(sample)\n",
    "batched": "def reward(samples):\n    return [one(s) for s in samples]\n",
}


def hundred() -> list[Sample]:
    texts = [ill for ill, count in ILLS.items() for _ in range(count)]
    texts += [str(number / 100) for number in range(100 - len(texts))]
    random.Random(0).shuffle(texts)
    prompts = [Prompt(f"p{i}", "clip.wav", "one", "en") for i in range(25)]
    return [Sample(prompts[i // 4], (1,), (-1.0,), text, StopReason.EOS, 0) for i, text in enumerate(texts)]


SLOW = [pytest.param(form, marks=[] if form == "sync" else [pytest.mark.slow]) for form in FORMS]
"""A blocked event loop is found out only after all that it awaits was late."""


@pytest.mark.parametrize("form", SLOW)
def test_exactly_the_healthy_samples_are_scored_and_the_pool_stays_whole(tmp_path: Path, form: str) -> None:
    (tmp_path / "mine.py").write_text(ONE + FORMS[form])
    # A batch that hangs is asked again one by one.
    retries = 1 if form == "batched" else 0
    limits = {"timeout": TIMEOUT, "max_memory": 0.3, "concurrency": 2, "batch_size": 10, "retries": retries}
    term = RewardConfig(fn="mine.py:reward", **limits)
    samples = hundred()
    batch = PackedBatch.of(InputBatch.of(samples))
    with Scorer(terms_of([term], tmp_path)) as scorer:
        came = scorer.score(batch, ENOUGH)
        outcomes = combine([term], ScoringConfig(), came.by_term, group_size=4, step=1)
        for sample, outcome in zip(samples, outcomes, strict=True):
            healthy = sample.text not in ILLS
            assert isinstance(outcome, Scored) == healthy, (sample.text, outcome)
            assert isinstance(outcome, Failed) or outcome.value == float(sample.text)
        scored = list(map(ScoredSample, samples, outcomes))
        metrics = failure_metrics(scored, group_size=4)
        assert metrics["reward_failed"] == 35
        assert {kind: metrics[f"reward_failed/{kind}"] for kind in EXPECTED} == EXPECTED
        assert came.work["reward_restarted"] > 0

        healthy = [sample for sample in samples if sample.text not in ILLS]
        again = scorer.score(PackedBatch.of(InputBatch.of(healthy)), ENOUGH)
        assert again.by_term == [[float(sample.text) for sample in healthy]]
