"""The demo data set `speech`: commands such as "open the red box", spoken in many ways by one synthetic voice.

It is for learning to speak as an instruction asks; docs/speech_data.md says what the set shows and what it does not.
"""

import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import soundfile as sf

from rlhf_platform.data.audio import SAMPLE_RATE
from rlhf_platform.data.build import Stamp, build_once, key_of
from rlhf_platform.data.delivery import Delivery, deliver
from rlhf_platform.data.manifest import Row, write_manifest
from rlhf_platform.data.speech_texts import TEXTS, VOCABULARY
from rlhf_platform.data.supervision import HIGHEST_ERROR, Heard, describe, listen, processes
from rlhf_platform.errors import DataError

BUILDER_VERSION = "1"
"""Raise it with every change that alters a clip or its description; sets built before are then built anew."""

RATE, F0, LEVEL = 18.5, 207.0, -24.5
"""Characters per second, Hz and dBFS of hibari's voice, about which deliveries vary."""

OFF_NORMAL = 0.3
"""How often each attribute of a delivery is other than normal."""

PHRASE_WORDS = (1, 2, 3, 3, 4, 4)
"""Of a phrase, each as likely."""

_TRIES = 100


@dataclass(frozen=True)
class Plan:
    """What to build. Rows that fail the cross-check are left out, so that a few less may come out."""

    train: int = 1200
    """Clips of the split `train`."""
    rl: int = 280
    """Clips of the split `rl`, of the same texts."""
    heldout: int = 120
    """Clips of the held-out split, whose texts, one in four of all commands, are in no other split."""
    phrases: float = 0.0
    """Share of the clips of `train` that say one to four words in any order instead of a command: to learn to speak
    from nothing a model has to hear that words stand by themselves, or it learns each command by heart."""
    seed: int = 0
    longest: float = 2.2
    """Seconds; no clip is longer."""


@dataclass(frozen=True)
class Place:
    """One clip of the plan."""

    split: str
    number: int
    text: str

    @property
    def id(self) -> str:
        return f"{self.split}/{self.number:05d}"


PRETRAINING = Plan(train=5000, rl=48, heldout=96, phrases=0.75)
"""The set `phrases`, which the shipped speaking backbone has learnt from."""


def build_speech(
    out_dir: str | Path,
    plan: Plan = Plan(),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Build the set in `out_dir` (16 kHz FLAC clips, manifest.jsonl, norms.json, dropped.json) and return the manifest;
    about two minutes.

    The same plan gives the same bits. A folder that holds the same build already is returned at once; the folder
    appears only when it is whole. `progress(done, total)` is called after each clip. Raises `DataError` if `out_dir`
    holds anything else, a package is not installed, or the plan asks for more held-out texts than there are.
    """
    return build_once(out_dir, "speech", _stamp(plan), partial(_write_set, plan=plan, progress=progress))


def build_key(plan: Plan = Plan()) -> str:
    """Names a build: eight hex digits that change with the plan and the builder's version."""
    return key_of(_stamp(plan))


def places(plan: Plan) -> list[Place]:
    """Every clip of the plan with its text."""
    texts = random.Random(f"{plan.seed}/texts").sample(TEXTS, len(TEXTS))
    held_out, learnt = texts[: len(texts) // 4], texts[len(texts) // 4 :]
    found = [
        Place(split, number, chosen[number % len(chosen)])
        for split, count, chosen in (("rl", plan.rl, learnt), ("heldout", plan.heldout, held_out))
        for number in range(count)
    ]
    for number in range(plan.train):
        rng = random.Random(f"{plan.seed}/train/{number}/text")
        phrase = " ".join(rng.choices(VOCABULARY, k=rng.choice(PHRASE_WORDS)))
        drawn = rng.random() < plan.phrases and phrase not in held_out
        found.append(Place("train", number, phrase if drawn else learnt[number % len(learnt)]))
    return found


def draw(rng: random.Random, words: int) -> Delivery:
    """A delivery of a text of so many words, every attribute off-normal with the chance `OFF_NORMAL`."""

    def off(*choices: str) -> str:
        return rng.choice(choices) if rng.random() < OFF_NORMAL else ""

    speed, rate = {"slow": (0.75, (0.62, 0.74)), "": (1.0, (0.93, 1.07)), "fast": (1.15, (1.32, 1.5))}[
        off("slow", "fast")
    ]
    semitones = {"low": (-5.5, -4.0), "": (-1.0, 1.0), "high": (4.0, 6.0)}[off("low", "high")]
    change = {"falling": (-10.0, -8.0), "": (-1.0, 1.0), "rising": (8.0, 10.0)}[off("falling", "rising")]
    level = {"soft": (-9.0, -6.5), "": (-1.0, 1.0), "loud": (6.0, 8.0)}[off("soft", "loud")]
    return Delivery(
        speed=speed,
        rate=RATE * rng.uniform(*rate),
        f0=F0 * 2 ** (rng.uniform(*semitones) / 12),
        change=rng.uniform(*change),
        level=LEVEL + rng.uniform(*level),
        emphasis=rng.choice([word for word in range(words) if word != 1]) if off("emphasis") else None,
        pause=(rng.choice((1, words - 1)), rng.uniform(0.22, 0.38)) if words > 1 and off("pause") else None,
    )


def _stamp(plan: Plan) -> Stamp:
    return {"builder": BUILDER_VERSION, "plan": asdict(plan), "highest_error": HIGHEST_ERROR}


def _write_set(folder: Path, plan: Plan, progress: Callable[[int, int], None]) -> None:
    """Clips of one text follow each other, since a process then finds its words' starts remembered."""
    for split in ("train", "rl", "heldout"):
        (folder / split).mkdir()
    ordered = sorted(places(plan), key=lambda place: place.text)
    made: dict[Place, tuple[Row, Heard]] = {}
    with processes() as pool:
        for place, found in zip(
            ordered, pool.map(partial(_write_clip, folder, plan), ordered, chunksize=8), strict=True
        ):
            made[place] = found
            progress(len(made), len(ordered))
    rows, heard = zip(*(made[place] for place in places(plan)), strict=True)
    described = describe(rows, heard, plan.seed)
    write_manifest(folder / "manifest.jsonl", described.rows)
    _write_json(folder / "norms.json", {speaker: asdict(norms) for speaker, norms in described.norms.items()})
    _write_json(folder / "dropped.json", {row.id: reason for row, reason in described.dropped})
    for row, _ in described.dropped:
        row.audio.unlink()


def _write_clip(folder: Path, plan: Plan, place: Place) -> tuple[Row, Heard]:
    rng = random.Random(f"{plan.seed}/{place.id}")
    for _ in range(_TRIES):
        samples = deliver(place.text, draw(rng, len(place.text.split())), rng.randrange(2**31))
        if len(samples) <= plan.longest * SAMPLE_RATE:
            break
    else:
        raise DataError(f"speech: no clip of {place.text!r} is shorter than {plan.longest:g} s; allow longer ones")
    audio = folder / f"{place.id}.flac"
    sf.write(audio, samples, SAMPLE_RATE, subtype="PCM_16")
    row = Row(
        manifest=folder / "manifest.jsonl",
        number=1,
        id=place.id,
        audio=audio,
        text=place.text,
        language="en",
        speaker="hibari",
        duration=len(samples) / SAMPLE_RATE,
        split=place.split,
        licence="Apache-2.0",
        sample_rate=SAMPLE_RATE,
        metadata={"voice": "hibari"},
    )
    heard = listen(row)
    if isinstance(heard, str):
        raise DataError(f"speech: {place.id} cannot be measured: {heard}")
    return row, heard


def _write_json(path: Path, values: object) -> None:
    path.write_text(json.dumps(values, indent=1) + "\n")
