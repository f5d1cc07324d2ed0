"""What does it cost to score in processes that may be killed? WER of 1,000 pairs of texts a step, by the whole path of
a run: driver, Ray actor, child process, rapidfuzz, and back to one outcome per sample.

    python benchmarks/rewards.py          forty rounds; about a minute
    python benchmarks/rewards.py --quick  ten rounds: the same keys, wider ranges

Each round takes the path and what it is compared with in turn, on the same texts; figures are medians over rounds, and
`*_range` the 5th and 95th percentile.

pairs_per_s              through the whole path, batches of 1,000, one reward worker
ratio_to_rapidfuzz       of that to calling rapidfuzz in a loop in one process, texts normalised and split as here
ratio_to_bare_rapidfuzz  the same, texts only split at spaces: a normaliser costs more than rapidfuzz itself
isolation_us_per_sample  of the child process alone: asking it, less calling the same function here
two_workers_*            with scoring.workers=2, in rounds of their own
ten_thousand_*           batches of 10,000, one worker: what each call to an actor costs is shared by more
"""

import argparse
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from statistics import median, quantiles

from rapidfuzz.distance import Levenshtein
from results import ROOT, write_results

from rewards.asr.errors import wer_reward
from rewards.pool import RewardPool
from rewards.processes.batch import InputBatch, PackedBatch
from rlhf_platform.data.prompts import read_archive
from rlhf_platform.data.text import words
from rlhf_platform.recipe.load import load_recipe
from rlhf_platform.train.cluster import cluster, placed
from rlhf_platform.train.team import Rewards
from rlhf_platform.types import Prompt, Sample, StopReason

GROUP = 8
REWARD_BUNDLE = 2
"""After those of one rollout worker and one learner, whose cores stay idle here."""


def samples_from(texts: Sequence[str], number: int) -> list[Sample]:
    """Groups of completions with the errors of a recogniser that is right nine words in ten."""
    draw = random.Random(0)
    vocabulary = sorted({word for text in texts for word in text.split()})

    def heard(text: str) -> str:
        given = [word if draw.random() > 0.1 else draw.choice(["", draw.choice(vocabulary)]) for word in text.split()]
        return " ".join(filter(None, given)).capitalize() + "."

    chosen = [texts[i % len(texts)] for i in range(number // GROUP)]
    prompts = [Prompt(f"p{i}", f"clips/{i}.flac", text, "en", "ann", 3.0) for i, text in enumerate(chosen)]
    return [
        Sample(prompt, tuple(range(20)), (-0.5,) * 20, heard(prompt.reference), StopReason.EOS, 1)
        for prompt in prompts
        for _ in range(GROUP)
    ]


def directly(samples: Sequence[Sample]) -> list[float]:
    """1 - min(WER, 1) by rapidfuzz, on the words that the reward compares."""
    made = ((words(s.prompt.reference, "en"), words(s.text, "en")) for s in samples)
    return [1.0 - min(Levenshtein.distance(a, b) / len(a), 1.0) for a, b in made]


def directly_on_splits(samples: Sequence[Sample]) -> list[float]:
    """The same on what stands between spaces, whatever its case and punctuation."""
    made = ((s.prompt.reference.split(), s.text.split()) for s in samples)
    return [1.0 - min(Levenshtein.distance(a, b) / len(a), 1.0) for a, b in made]


@contextmanager
def reward_workers(number: int) -> Iterator[Rewards]:
    """The reward actors of the quickstart, on a Ray of their own."""
    loaded = load_recipe(ROOT / "recipes/asr/quickstart.yaml", [f"scoring.workers={number}"])
    with cluster(loaded.recipe), placed(loaded.recipe) as placement:
        rewards = Rewards(loaded, placement, count(REWARD_BUNDLE))
        rewards.ready()
        yield rewards


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turn(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each work in each round, after one that does not count."""
    taken = [{name: seconds(work) for name, work in works.items()} for _ in range(rounds + 1)][1:]
    return {name: [each[name] for each in taken] for name in works}


def spread(name: str, values: Sequence[float], digits: int) -> dict[str, object]:
    marks = quantiles(values, n=20)
    return {name: round(median(values), digits), f"{name}_range": [round(marks[0], digits), round(marks[-1], digits)]}


def ratios(taken: dict[str, list[float]], of: str) -> list[float]:
    return [one / path for one, path in zip(taken[of], taken["path"], strict=True)]


def whole_path(samples: list[Sample], workers: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of the path, of rapidfuzz alone, and of what a process adds, in turn."""
    batch, inputs = PackedBatch.of(InputBatch.of(samples)), InputBatch.of(samples).inputs()
    with reward_workers(workers) as rewards, RewardPool.of("rewards.asr:wer_reward") as pool:
        scored, _ = rewards.score(samples, 1, GROUP)
        assert [s.outcome.value for s in scored] == directly(samples)
        works: dict[str, Callable[[], object]] = {
            "path": lambda: rewards.score(samples, 1, GROUP),
            "direct": lambda: directly(samples),
            "splits": lambda: directly_on_splits(samples),
            "process": lambda: pool.score(batch),
            "here": lambda: [wer_reward(each) for each in inputs],
        }
        return in_turn(works, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="ten rounds")
    quick: bool = parser.parse_args().quick
    texts = [recording.text for recording in read_archive()]
    samples = samples_from(texts, 1_000)
    rounds = 10 if quick else 40
    one, two = (whole_path(samples, workers, rounds) for workers in (1, 2))
    many = whole_path(samples_from(texts, 10_000), 1, max(3, rounds // 4))
    isolation = [1e6 * (a - b) / len(samples) for a, b in zip(one["process"], one["here"], strict=True)]
    figures = {
        "batch": len(samples),
        "words_per_reference": round(sum(len(s.prompt.reference.split()) for s in samples) / len(samples), 1),
        **spread("pairs_per_s", [len(samples) / each for each in one["path"]], 0),
        **spread("ratio_to_rapidfuzz", ratios(one, "direct"), 3),
        **spread("ratio_to_bare_rapidfuzz", ratios(one, "splits"), 3),
        **spread("isolation_us_per_sample", isolation, 2),
        **spread("two_workers_pairs_per_s", [len(samples) / each for each in two["path"]], 0),
        **spread("two_workers_ratio_to_rapidfuzz", ratios(two, "direct"), 3),
        **spread("ten_thousand_pairs_per_s", [10_000 / each for each in many["path"]], 0),
        **spread("ten_thousand_ratio_to_rapidfuzz", ratios(many, "direct"), 3),
    }
    for name, figure in figures.items():
        print(f"{name:32} {figure}")
    print("written to", write_results("rewards", figures, quick))


if __name__ == "__main__":
    main()
