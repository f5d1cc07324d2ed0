"""What a model card says of a data set: clips, hours, speakers, languages and licences, counted from its manifest."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_platform.data import demo
from rlhf_platform.data.manifest import Row


@dataclass(frozen=True)
class SplitSummary:
    """The rows of one split."""

    split: str
    clips: int
    hours: float
    speakers: int
    languages: tuple[str, ...]
    """ISO 639-1 codes, the most frequent first."""
    licences: Mapping[str, int]
    """Clips under each, the most frequent first."""


def summarize(rows: Sequence[Row], splits: Iterable[str]) -> list[SplitSummary]:
    """One summary per split, in the order given, each split once; one without rows is left out."""
    summaries = []
    for split in dict.fromkeys(splits):
        chosen = [row for row in rows if row.split == split]
        if chosen:
            summaries.append(
                SplitSummary(
                    split=split,
                    clips=len(chosen),
                    hours=sum(row.duration for row in chosen) / 3600,
                    speakers=len({row.speaker for row in chosen}),
                    languages=tuple(name for name, _ in Counter(row.language for row in chosen).most_common()),
                    licences=dict(Counter(row.licence for row in chosen).most_common()),
                )
            )
    return summaries


def manifest_of(data: Mapping[str, Any], caches: Iterable[Path]) -> Path | None:
    """The manifest that a recipe's `data` section names; None when no file is there.

    `caches`: folders that may be the recipe's `cache_dir`, where a demo set lies once it is built. Builds nothing.
    """
    if data.get("manifest"):
        places = [Path(data["manifest"])]
    elif data.get("demo") in demo.NAMES:
        places = [demo.folder_of(data["demo"], cache) / "manifest.jsonl" for cache in caches]
    else:
        places = []
    return next((place for place in places if place.is_file()), None)
