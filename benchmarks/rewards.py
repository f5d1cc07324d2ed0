"""What does it cost to score in processes that may be killed? WER of 1,000 pairs of texts a step, by the whole path of
a run: driver, Ray actor, child process, rapidfuzz, and back to one outcome per sample.

    python benchmarks/rewards.py          forty rounds; about a minute
    python benchmarks/rewards.py --quick  ten rounds: the same keys, wider ranges

Each round takes the path and what it is compared with in turn, on the same texts; figures are medians over rounds, and
`*_range` the 5th and 95th percentile.

pairs_per_s              through the whole path, batches of 1,000
ratio_to_rapidfuzz       of that to calling rapidfuzz in a loop in one process, texts normalised and split as here
ratio_to_bare_rapidfuzz  the same, texts only split at spaces: a normaliser costs more than rapidfuzz itself
isolation_us_per_sample  of the child process alone: asking it, less calling the same function here
"""

import argparse
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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

PROMPTS, GROUP = 125, 8
REWARD_BUNDLE = 2
"""After those of one rollout worker and one learner, whose cores stay idle here."""


def samples_from(texts: Sequence[str]) -> list[Sample]:
    """Groups of completions with the errors of a recogniser that is right nine words in ten."""
    draw = random.Random(0)
    vocabulary = sorted({word for text in texts for word in text.split()})

    def heard(text: str) -> str:
        given = [word if draw.random() > 0.1 else draw.choice(["", draw.choice(vocabulary)]) for word in text.split()]
        return " ".join(filter(None, given)).capitalize() + "."

    prompts = [Prompt(f"p{i}", f"clips/{i}.flac", texts[i % len(texts)], "en", "ann", 3.0) for i in range(PROMPTS)]
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
def reward_workers() -> Iterator[Rewards]:
    """The reward actors of the quickstart, on a Ray of their own."""
    loaded = load_recipe(ROOT / "recipes/asr/quickstart.yaml")
    with cluster(loaded.recipe), placed(loaded.recipe) as placement:
        rewards = Rewards(loaded, placement, iter([REWARD_BUNDLE]))
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="ten rounds")
    quick: bool = parser.parse_args().quick
    samples = samples_from([recording.text for recording in read_archive()])
    batch = PackedBatch.of(InputBatch.of(samples))
    inputs = InputBatch.of(samples).inputs()
    with reward_workers() as rewards, RewardPool.of("rewards.asr:wer_reward") as pool:
        scored, _ = rewards.score(samples, 1, GROUP)
        assert [s.outcome.value for s in scored] == directly(samples)
        works: dict[str, Callable[[], object]] = {
            "path": lambda: rewards.score(samples, 1, GROUP),
            "direct": lambda: directly(samples),
            "splits": lambda: directly_on_splits(samples),
            "process": lambda: pool.score(batch),
            "here": lambda: [wer_reward(each) for each in inputs],
        }
        taken = in_turn(works, 10 if quick else 40)
    number = len(samples)
    isolation = [1e6 * (a - b) / number for a, b in zip(taken["process"], taken["here"], strict=True)]
    figures = {
        "batch": number,
        "words_per_reference": round(sum(len(s.prompt.reference.split()) for s in samples) / number, 1),
        **spread("pairs_per_s", [number / each for each in taken["path"]], 0),
        **spread("ratio_to_rapidfuzz", [a / b for a, b in zip(taken["direct"], taken["path"], strict=True)], 3),
        **spread("ratio_to_bare_rapidfuzz", [a / b for a, b in zip(taken["splits"], taken["path"], strict=True)], 3),
        **spread("isolation_us_per_sample", isolation, 2),
    }
    for name, figure in figures.items():
        print(f"{name:32} {figure}")
    print("written to", write_results("rewards", figures, quick))


if __name__ == "__main__":
    main()
