"""Pairs of utterances for people who must not know which system made which: sounds, a sheet to fill in, and the key."""

import csv
import random
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from rlhf_platform.data.audio import SAMPLE_RATE, load_audio
from rlhf_platform.data.blind_key import BlindPair, Side, write_key
from rlhf_platform.data.pairs import Answer
from rlhf_platform.data.ratings import VOTES
from rlhf_platform.errors import DataError
from rlhf_platform.evaluation.arena import common
from rlhf_platform.evaluation.utterances import System, Utterance
from rlhf_platform.types import Prompt

RATERS = "raters"
"""The folder to hand out; the key stays beside it."""

_README = """\
Each pair in pairs/ is the same text, spoken twice: NUMBER_a.wav and NUMBER_b.wav. Use headphones.
prompts.csv has the text of each pair, and how it was to be spoken; where nothing is said, plainly.
Write into ratings.csv on the pair's row: a name or number for you as rater, and answer a, b or tie for the better one.
The better one says every word of the text, as it was asked for, and sounds more natural, in that order.
Add a reason if you like. Leave the answer blank where you did not listen; do not talk to other raters before you end.
"""


def export(systems: Mapping[str, System], folder: Path, seed: int = 0) -> int:
    """Write the blind pairs of every two systems, in random order with random sides; returns how many there are.

    Pairs of which a side has no sound are left out. Raises `DataError` when the folder has a key already, no pair is
    left or a teacher's clip cannot be read.
    """
    folder = folder.absolute()
    if (folder / "key.json").exists():
        raise DataError(f"{folder}: has the key.json of other pairs, whose ratings may be under way; name a new folder")
    drawn = _drawn(systems, seed)
    if not drawn:
        raise DataError("no prompt has a sound of two systems, so there is nothing to rate")
    prompts = _prompts(drawn)
    sheet = folder / RATERS
    (sheet / "pairs").mkdir(parents=True, exist_ok=True)
    key: dict[str, BlindPair] = {}
    for number, both in enumerate(drawn, start=1):
        sides = []
        for letter, spoken in zip("ab", both, strict=True):
            target = sheet / "pairs" / f"{number:04d}_{letter}.wav"
            shutil.copyfile(spoken.wav, target)
            sides.append(Side(spoken.system, Answer(tokens=spoken.utterance.tokens, audio=str(target))))
        key[f"{number:04d}"] = BlindPair(prompts[both[0].utterance.prompt_id], *sides)
    asked = [(both[0].utterance.text, both[0].utterance.instruction) for both in drawn]
    _write(sheet / "prompts.csv", ("pair", "text", "instruction"), [(n, *a) for n, a in zip(key, asked, strict=True)])
    _write(sheet / "ratings.csv", (*VOTES, "reason"), [(name, "", "", "") for name in key])
    (sheet / "README.txt").write_text(_README, "utf-8")
    write_key(folder / "key.json", key)
    return len(key)


@dataclass(frozen=True)
class _Spoken:
    system: str
    utterance: Utterance
    wav: Path


def _drawn(systems: Mapping[str, System], seed: int) -> list[tuple[_Spoken, _Spoken]]:
    """What two systems said to a prompt, as side a and side b."""
    rng = random.Random(seed)
    found = []
    for first, second in combinations(systems, 2):
        for one, other in common(first, systems[first], second, systems[second]):
            if one.wav and other.wav:
                sides = (_Spoken(first, one, one.wav), _Spoken(second, other, other.wav))
                found.append(sides if rng.random() < 0.5 else sides[::-1])
    rng.shuffle(found)
    return found


def _prompts(drawn: Iterable[tuple[_Spoken, _Spoken]]) -> dict[str, Prompt]:
    """One of each id, whichever system's row is the first: all systems were asked the same."""
    first = {both[0].utterance.prompt_id: both[0].utterance for both in drawn}
    return {
        name: Prompt(
            id=name,
            audio=str(utterance.reference),
            reference=utterance.text,
            language=utterance.language,
            duration=len(load_audio(utterance.reference)) / SAMPLE_RATE,
            metadata=utterance.metadata,
        )
        for name, utterance in first.items()
    }


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
