"""Judged answers: one JSON object per line, a prompt with two answers of which one was chosen, or one with a label.

docs/preferences.md is the page for users. Importing this file imports no torch. As in a manifest, all bad rows are
found before an error is raised, and a row is named by its line number.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os.path import normpath, relpath
from pathlib import Path
from typing import Any

from rlhf_platform.data.manifest import Row, check_audio, kind_of, raise_if_any
from rlhf_platform.data.pair_keys import AUDIO, row_problem
from rlhf_platform.errors import DataError
from rlhf_platform.recipe.algorithms import AlgorithmConfig
from rlhf_platform.recipe.preferences import KTO, RewardModel
from rlhf_platform.types import Prompt


@dataclass(frozen=True)
class Answer:
    """A completion as a row states it. `tokens` count where they are given; the text is then for people."""

    text: str | None = None
    tokens: tuple[int, ...] | None = None
    """Token ids of the backbone's vocabulary, end token included where there is one."""
    codec: tuple[int, ...] | None = None
    """Codec indices from 0, as a manifest's `metadata.codec`."""
    audio: str | None = field(default=None, compare=False)
    """Absolute path of what it sounds like, for people: nothing learns from it."""

    def same_as(self, other: "Answer") -> bool:
        """Whether there is nothing to choose: the same tokens or codec indices, the same text where neither has any."""
        if self.tokens is None and self.codec is None:
            return self == other
        return (self.tokens, self.codec) == (other.tokens, other.codec)


@dataclass(frozen=True)
class Origin:
    """Where a judgement is from; "" where nobody said."""

    source: str = ""
    """Who made it: `rollout`, `human`, or a name."""
    rater: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Pair:
    """Two answers to a prompt, of which one was chosen."""

    number: int
    """Line of the file, from 1."""
    prompt: Prompt
    chosen: Answer
    rejected: Answer
    margin: float = 0.0
    """How much better the chosen is, at least 0, in whatever unit it was judged."""
    tie: bool = False
    """Neither is better: which is called chosen says nothing."""
    origin: Origin = Origin()


@dataclass(frozen=True)
class Opinion:
    """An answer that is good or bad by itself."""

    number: int
    prompt: Prompt
    completion: Answer
    label: bool
    origin: Origin = Origin()


Judgement = Pair | Opinion


def read_pairs(path: str | Path, algorithm: AlgorithmConfig | None = None) -> list[Judgement]:
    """All rows, after the checks that need no decoding and no backbone: `algorithm`, if any, can learn from each, too.

    Raises one `DataError` that counts the bad rows and names the first ten, or says that there are no rows.
    """
    path = Path(path).absolute()
    if not path.is_file():
        raise DataError(f"{path}: no such file of pairs; name a JSONL file (docs/preferences.md)")
    found: list[Judgement] = []
    problems: list[tuple[int, str]] = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        row = _parse(path, number, line)
        problem = row if isinstance(row, str) else _unlearnt(row, algorithm) if algorithm else ""
        if problem or isinstance(row, str):
            problems.append((number, problem))
        else:
            found.append(row)
    problems += _two_clips_of_one_id(found)
    raise_if_any(path, problems, "cannot be used")
    if not found:
        raise DataError(f"{path}: empty: a file of pairs has one JSON object per line (docs/preferences.md)")
    return found


def write_pairs(path: str | Path, judgements: Iterable[Judgement]) -> None:
    """Write the rows as JSONL, with audio paths relative to the file; `read_pairs` gives them back."""
    path = Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(_as_json(j, path), ensure_ascii=False) + "\n" for j in judgements), "utf-8")


def check_prompts(path: str | Path, judgements: Iterable[Judgement], known_ids: Collection[str]) -> None:
    """Raises one `DataError` as `read_pairs` when rows are about prompts that are not among `known_ids`."""
    said = "is not in the manifest; give the row the `id` of its prompt there, or leave it out"
    unknown = [j for j in judgements if j.prompt.id not in known_ids]
    raise_if_any(Path(path), [(j.number, f"id {j.prompt.id!r} {said}") for j in unknown], "cannot be used")


def above_margin(pairs: Iterable[Pair], margin: float) -> list[Pair]:
    """The pairs whose chosen answer is better by at least `margin`; above 0 no tie is left. Their numbers stay."""
    return [pair for pair in pairs if pair.margin >= margin]


def check_clips(
    path: str | Path,
    judgements: Sequence[Judgement],
    window: float,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Decode every clip once, as `manifest.check_audio`, which says what is raised."""
    first = {j.prompt.audio: j for j in reversed(judgements)}
    check_audio([_as_row(Path(path), j) for j in sorted(first.values(), key=lambda j: j.number)], window, progress)


def opinions(judgements: Iterable[Judgement]) -> Iterator[Opinion]:
    """Each by itself: the chosen answer of a pair is good, the rejected bad."""
    for judgement in judgements:
        if isinstance(judgement, Opinion):
            yield judgement
        else:
            yield Opinion(judgement.number, judgement.prompt, judgement.chosen, True, judgement.origin)
            yield Opinion(judgement.number, judgement.prompt, judgement.rejected, False, judgement.origin)


def _parse(path: Path, number: int, line: bytes) -> Judgement | str:
    """The row, or what is wrong with it."""
    try:
        values = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return "not UTF-8; save the file as UTF-8"
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} at column {error.colno}"
    if not isinstance(values, dict):
        return f"a row is a JSON object, not {kind_of(values)}"
    if problem := row_problem(values):
        return problem
    paths = {key: normpath(path.parent / values[key]) for key in AUDIO if key in values}
    for key, found in paths.items():
        if not Path(found).is_file():
            return f"{key} {values[key]!r} does not exist; paths are relative to the folder of the file"
    prompt = Prompt(
        id=values.get("id", str(Path(values["audio"]).with_suffix(""))),
        audio=paths["audio"],
        reference=values["text"],
        language=values["language"],
        speaker=values.get("speaker", ""),
        duration=float(values["duration"]),
        metadata=values.get("metadata", {}),
    )
    values |= paths
    origin = Origin(values.get("source", ""), values.get("rater", ""), values.get("reason", ""))
    if "label" in values:
        return Opinion(number, prompt, _answer(values, "completion"), values["label"], origin)
    chosen, rejected = _answer(values, "chosen"), _answer(values, "rejected")
    if chosen.same_as(rejected):
        return "chosen and rejected are the same answer; leave the row out"
    return Pair(number, prompt, chosen, rejected, float(values.get("margin", 0.0)), values.get("tie", False), origin)


def _unlearnt(judgement: Judgement, algorithm: AlgorithmConfig) -> str:
    """Why the algorithm learns nothing from a row; "" when it does."""
    kind = algorithm.type
    if isinstance(judgement, Opinion):
        return "" if isinstance(algorithm, KTO) else f"completion and label are learnt by kto, {kind} learns from pairs"
    if not judgement.tie:
        return ""
    if isinstance(algorithm, RewardModel):
        way_out = "set it, to 0.69 for example, or leave the row out"
        return "" if algorithm.tie_threshold > 0 else f"tie is true, and algorithm.tie_threshold is 0; {way_out}"
    return f"tie is true: {kind} learns nothing from ties; leave the row out"


def _two_clips_of_one_id(judgements: Sequence[Judgement]) -> list[tuple[int, str]]:
    first: dict[str, Judgement] = {}
    problems = []
    for judgement in judgements:
        other = first.setdefault(judgement.prompt.id, judgement)
        if other.prompt != judgement.prompt:
            said = f"id {judgement.prompt.id!r} is that of row {other.number}, whose prompt is another"
            problems.append((judgement.number, f"{said}; give each prompt its own `id`"))
    return problems


def _answer(values: Mapping[str, Any], name: str) -> Answer:
    text, tokens, codec, audio = (values.get(name + form) for form in ("", "_tokens", "_codec", "_audio"))
    return Answer(text, None if tokens is None else tuple(tokens), None if codec is None else tuple(codec), audio)


def _as_row(path: Path, judgement: Judgement) -> Row:
    """The prompt as a row of a manifest, to be checked as one."""
    prompt = judgement.prompt
    return Row(
        path,
        judgement.number,
        prompt.id,
        Path(prompt.audio),
        prompt.reference,
        prompt.language,
        prompt.speaker,
        prompt.duration,
        split="",
        licence="",
    )


def _as_json(judgement: Judgement, path: Path) -> dict[str, Any]:
    prompt = judgement.prompt
    values: dict[str, Any] = {
        "id": prompt.id,
        "audio": _relative(prompt.audio, path),
        "text": prompt.reference,
        "language": prompt.language,
        "speaker": prompt.speaker,
        "duration": prompt.duration,
    }
    values |= {"metadata": dict(prompt.metadata)} if prompt.metadata else {}
    origin = {key: value for key, value in vars(judgement.origin).items() if value}
    if isinstance(judgement, Opinion):
        return values | _stated("completion", judgement.completion, path) | {"label": judgement.label} | origin
    values |= _stated("chosen", judgement.chosen, path) | _stated("rejected", judgement.rejected, path)
    values |= {"margin": judgement.margin} if judgement.margin else {}
    return values | ({"tie": True} if judgement.tie else {}) | origin


def _stated(name: str, answer: Answer, path: Path) -> dict[str, Any]:
    audio = None if answer.audio is None else _relative(answer.audio, path)
    forms = {"": answer.text, "_tokens": answer.tokens, "_codec": answer.codec, "_audio": audio}
    return {name + form: value for form, value in forms.items() if value is not None}


def _relative(audio: str, path: Path) -> str:
    return Path(relpath(audio, path.parent)).as_posix()
