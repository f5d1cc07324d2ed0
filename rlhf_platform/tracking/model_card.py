"""The README.md of an exported model, in the form of Hugging Face's model cards.

It says what the run's folder and the manifest say, and where they say nothing, that they do.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from rlhf_platform.data.summary import SplitSummary

TASK = "automatic-speech-recognition"


@dataclass(frozen=True)
class Card:
    """The facts of a card."""

    name: str
    step: int | None
    """The RL step of a checkpoint on the way; None: the run's end."""
    adapter: bool
    """Whether the weights are a PEFT adapter rather than a whole model."""
    model_class: str
    """In Transformers, of the model or of the adapter's base."""
    processor_class: str
    """`AutoProcessor`, or `AutoTokenizer` for a model without one."""
    start: str
    """The checkpoint that RL started from; empty when the run does not say."""
    recipe: Mapping[str, Any]
    recipe_yaml: str
    results: Mapping[str, Any]
    """results.json; empty for a step."""
    report: str
    """The table of report.txt; empty for a step."""
    metrics: Mapping[str, float]
    """Training metrics of the step; empty for the run's end."""
    splits: Sequence[SplitSummary]
    data_problem: str
    """Why nothing could be counted; empty when `splits` says it."""
    versions: Mapping[str, str]
    notice: str
    """How the origin and licence of the base weights are told, a sentence."""


def card(facts: Card) -> str:
    """The whole README.md."""
    recipe = f"```yaml\n{facts.recipe_yaml.rstrip()}\n```"
    versions = _table(("library", "version"), facts.versions.items())
    parts = [
        f"---\n{yaml.safe_dump(front_matter(facts), sort_keys=False, allow_unicode=True)}---",
        f"# {facts.name}",
        _what(facts),
        f"## How to load\n\n```python\n{_snippet(facts)}```",
        f"## Results\n\n{_results(facts)}",
        f"## Training\n\n{_training(facts)}",
        f"## Data\n\n{_data(facts)}",
        f"## Use and limits\n\n{_limits(facts)}",
        f"## Licence\n\n{_licence(facts)}",
        f"## Recipe\n\n<details><summary>All keys as run</summary>\n\n{recipe}\n\n</details>",
        f"## Versions\n\nInstalled where this card was written:\n\n{versions}",
    ]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def front_matter(facts: Card) -> dict[str, Any]:
    """The metadata that a model hub reads. What is not known is left out."""
    algorithm = str(facts.recipe.get("algorithm", {}).get("type", ""))
    matter: dict[str, Any] = {
        "library_name": "peft" if facts.adapter else "transformers",
        "pipeline_tag": "text-to-speech" if _speaks(facts) else TASK,
        "tags": [tag for tag in ("rlhf-platform", "speech", "reinforcement-learning", algorithm) if tag],
    }
    if languages := list(dict.fromkeys(language for split in facts.splits for language in split.languages)):
        matter["language"] = languages
    if base := hub_name(facts.recipe.get("backbone", {}).get("path")):
        matter["base_model"] = base
    if facts.results and not _speaks(facts):  # no metric of a hub is what speech is measured by here
        matter["metrics"] = ["wer"]
        matter["model-index"] = [{"name": facts.name, "results": [_index(facts)]}]
    return matter


def _speaks(facts: Card) -> bool:
    return facts.recipe.get("branch") == "tts"


def hub_name(path: object) -> str:
    """`backbone.path` when it is a name on a model hub; empty when it is a folder or nothing."""
    return path if isinstance(path, str) and re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", path) else ""


def _index(facts: Card) -> dict[str, Any]:
    data = facts.recipe.get("data", {})
    name = data.get("demo") or "own data"
    return {
        "task": {"type": TASK, "name": "Automatic speech recognition"},
        "dataset": {"type": name, "name": name, "split": data.get("eval_split", "heldout")},
        "metrics": [{"type": "wer", "value": round(100 * facts.results["wer_after"], 2), "name": "WER after RL, %"}],
    }


def _what(facts: Card) -> str:
    backbone, algorithm = facts.recipe.get("backbone", {}), facts.recipe.get("algorithm", {}).get("type", "RL")
    hub, path, build = hub_name(backbone.get("path")), backbone.get("path"), backbone.get("build")
    if hub:
        base = f"`{hub}`"
    elif path:
        base = f"a checkpoint in a folder of its maker, `{str(path).rstrip('/').rpartition('/')[2]}`"
    else:
        base = f"what `backbone.build: {build}` of rlhf-platform builds"
    warm = [f"{facts.recipe[stage]['steps']} steps of `{stage}`" for stage in ("align", "sft") if _steps(facts, stage)]
    kind = "A LoRA adapter (PEFT) for a" if facts.adapter else "A"
    task, ways = "speech recognition", "speech in, transcript out"
    if _speaks(facts):
        codec = facts.recipe.get("speech", {}).get("codec")
        task, ways = "speech synthesis", f"text in, tokens of the codec `{codec}` out (`speech.json`)"
    lines = [
        f"{kind} {task} model in the `{backbone.get('adapter')}` layout: {ways}.",
        f"Base model: {base}." + (f" It was first tuned on transcripts: {' and '.join(warm)}." if warm else ""),
    ]
    if facts.step is not None:
        lines.append(
            f"Then {facts.step} of {facts.recipe.get('steps')} steps of {algorithm.upper()}: a checkpoint on the way."
        )
    elif facts.recipe.get("steps"):
        lines.append(f"Then {facts.recipe['steps']} steps of {algorithm.upper()} on rewards.")
    lines.append("Made with rlhf-platform.")
    return "\n".join(lines)


def _steps(facts: Card, stage: str) -> int:
    return int(facts.recipe.get(stage, {}).get("steps", 0))


def _snippet(facts: Card) -> str:
    imports = f"from transformers import {', '.join(sorted({facts.model_class, facts.processor_class}))}\n\n"
    if not facts.adapter:
        return (
            f'{imports}folder = "."  # where this file lies\n'
            f"model = {facts.model_class}.from_pretrained(folder)\n"
            f"processor = {facts.processor_class}.from_pretrained(folder)\n"
        )
    return (
        f"from peft import PeftModel\n{imports}"
        f'base = "{facts.start}"  # the very weights that RL started from; others do not fit the adapter\n'
        f'model = PeftModel.from_pretrained({facts.model_class}.from_pretrained(base), ".")  # where this file lies\n'
        f"processor = {facts.processor_class}.from_pretrained(base)\n"
    )


def _results(facts: Card) -> str:
    if facts.step is not None:
        rows = ((f"`{name}`", f"{value:.6g}") for name, value in facts.metrics.items())
        return f"This step was not evaluated on held-out clips. Metrics of training at step {facts.step}:\n\n" + _table(
            ("metric", "value"), rows
        )
    results = facts.results
    if _speaks(facts):
        return _spoken_results(facts)
    low, high = results["wer_difference_interval"]
    return (
        f"Held-out word error rate: {100 * results['wer_before']:.2f} % before RL, {100 * results['wer_after']:.2f} % "
        f"after; difference {100 * results['wer_difference']:+.2f} points, "
        f"{100 * results['confidence']:g} % interval [{100 * low:+.2f}, {100 * high:+.2f}] "
        "(paired bootstrap over clips: what other clips of the kind would give, not what another run would).\n\n"
        f"```text\n{facts.report.rstrip()}\n```"
    )


def _spoken_results(facts: Card) -> str:
    results = facts.results
    told = "Not one held-out prompt could be judged."
    if results["win_rate"] is not None:
        low, high = results["win_rate_interval"]
        told = (
            f"Better than before RL on {100 * results['win_rate']:.1f} % of the held-out prompts, "
            f"{100 * results['confidence']:g} % interval [{100 * low:.1f}, {100 * high:.1f}], by the weighted sum of "
            "what measured it."
        )
    rows = (
        (f"`{name}`", f"{value:.4g}", f"{results['heldout_after'].get(name, float('nan')):.4g}")
        for name, value in results["heldout_before"].items()
    )
    return f"{told}\n\n{_table(('held-out mean', 'before RL', 'after'), rows)}"


def _training(facts: Card) -> str:
    recipe = facts.recipe
    algorithm, learner = recipe.get("algorithm", {}), recipe.get("learner", {})
    settings = ", ".join(f"`{key}: {value}`" for key, value in algorithm.items())
    rank = learner.get("lora", {}).get("rank", 0)
    rewards = [
        (f"`{str(term.get('fn')).rpartition('/')[2]}`", term.get("weight", 1.0)) for term in recipe.get("rewards", [])
    ]
    trained = f"LoRA of rank {rank} in the decoder" if rank else "whole weights"
    if not rank and learner.get("freeze_encoder"):
        trained += ", the audio encoder kept as it was"
    return (
        f"Algorithm: {settings}. Trained: {trained}, learning rate {learner.get('learning_rate')}. "
        f"Seed {recipe.get('seed')}.\n\nWhat it was rewarded for:\n\n{_table(('reward', 'weight'), rewards)}"
    )


def _data(facts: Card) -> str:
    if facts.data_problem:
        return f"{facts.data_problem} Its clips, speakers and licences are therefore not told here."
    used = facts.recipe.get("data", {})
    limit = facts.recipe.get("evaluation", {}).get("max_clips")
    for_what = {
        used.get("eval_split"): f"evaluation, at most {limit} clips" if limit else "evaluation",
        used.get("train_split"): "warm start" if _steps(facts, "sft") + _steps(facts, "align") else "",
    }
    for_what[used.get("rl_split")] = " and ".join(filter(None, (for_what.get(used.get("rl_split")), "RL")))
    rows = (
        (s.split, for_what.get(s.split) or "not used", s.clips, f"{s.hours:.2f}", s.speakers, ", ".join(s.languages))
        for s in facts.splits
    )
    licences = ((s.split, licence, clips) for s in facts.splits for licence, clips in s.licences.items())
    name = f"The set `{used['demo']}` of rlhf-platform." if used.get("demo") else "Data of the maker's own."
    return (
        f"{name}\n\n{_table(('split', 'used for', 'clips', 'hours', 'speakers', 'languages'), rows)}\n\n"
        f"Licences of the clips, as the manifest states them:\n\n{_table(('split', 'licence', 'clips'), licences)}"
    )


def _limits(facts: Card) -> str:
    languages = sorted({language for split in facts.splits for language in split.languages})
    window = facts.recipe.get("backbone", {}).get("window")
    lines = [
        f"Meant for {'speaking' if _speaks(facts) else 'transcribing speech'}"
        + (f" in: {', '.join(languages)}" if languages else "")
        + ".",
        f"Clips were at most {window:g} s long." if window else "",
        "Nothing was measured beyond what stands above: no other language, speaker, place or recording condition.",
        "It was trained to raise the rewards above, and may have learnt what raises them without being right.",
        "It can leave words out or say others: listen where it matters. Say that it is no person where people hear it."
        if _speaks(facts)
        else "Transcripts can be wrong, and can hold words that nobody said: check them where it matters.",
    ]
    return "\n".join(f"- {line}" for line in lines if line)


def _licence(facts: Card) -> str:
    return f"{facts.notice} The licences of the clips stand under Data. Whoever passes this model on answers for both."


def _table(headings: Sequence[str], rows: Any) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
