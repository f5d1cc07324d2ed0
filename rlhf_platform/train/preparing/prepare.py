"""What a run needs before its actors start: prompts, a backbone, a warm start. Each is made once and cached."""

import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import ray

import policies
import rlhf_platform
from policies.load import decoder_positions, load_adapter
from policies.mtp.heads import check_folder
from rlhf_platform.data import demo
from rlhf_platform.data.manifest import check_audio, check_splits, of_split, read_manifest, to_prompt
from rlhf_platform.errors import DataError, RecipeError
from rlhf_platform.learner.mtp_worker import MtpWorker
from rlhf_platform.learner.process_group import Rendezvous, prepare_deepspeed
from rlhf_platform.learner.sft import STAGES, Course, Stage, section_of
from rlhf_platform.learner.sft_worker import SFTWorker
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.tracking.progress import Display
from rlhf_platform.train.cluster import actor_options
from rlhf_platform.train.decoding import parts_of
from rlhf_platform.train.links import fingerprint, made_whole
from rlhf_platform.train.preparing.beside import Beside, beside_of
from rlhf_platform.train.preparing.dialogue import check_turns
from rlhf_platform.train.preparing.questions import judge_prompts
from rlhf_platform.train.preparing.speech import check_texts, hearing, speaking, with_codec
from rlhf_platform.train.stages import run_stage
from rlhf_platform.types import Prompt

_STAGE_NAMES: dict[Stage, str] = {"align": "adaptor", "sft": "warm start"}
"""As a person is told of them."""


@dataclass(frozen=True)
class Data:
    """Prompts of the warm start, of RL and of the evaluation, and a digest of the manifest they are from."""

    train: list[Prompt]
    rl: list[Prompt]
    evaluation: list[Prompt]
    digest: str


def prepare_data(recipe: Recipe, display: Display) -> Data:
    """Read the manifest (building a demo set first) and check every clip. Raises DataError with all bad rows."""
    if recipe.data.labelled or recipe.data.demo == "judge":
        return _questions(recipe, display)
    path = manifest_of(recipe, display)
    rows = read_manifest(path)
    for learnt in {recipe.data.train_split, recipe.data.rl_split}:
        check_splits(rows, learnt, recipe.data.eval_split)
    with display.phase("check audio", len(rows)) as phase:
        long_split = recipe.data.eval_split if recipe.evaluation.long_form == "vad" else None
        check_audio(rows, recipe.backbone.window, lambda done, total: phase.update(done), long_split)
    train = [to_prompt(row) for row in of_split(rows, recipe.data.train_split)]
    rl = [to_prompt(row) for row in of_split(rows, recipe.data.rl_split)]
    evaluation = [to_prompt(row) for row in of_split(rows, recipe.data.eval_split)]
    limit = recipe.evaluation.max_clips or len(evaluation)
    evaluation = evaluation[:: max(1, -(-len(evaluation) // limit))]
    _cut_long_clips(recipe, evaluation, display)
    content = path.read_bytes()
    if recipe.branch == "realtime":
        check_turns(recipe, rows)
    if recipe.branch == "tts":
        rows = [row for row in rows if row.split in (recipe.data.rl_split, recipe.data.eval_split)]
        check_texts(recipe, rows)
        if recipe.sft.steps or recipe.rehearsal.metric:
            with display.phase("encode recordings", len(train)) as phase:
                train = with_codec(recipe, train, phase.update)
        content += json.dumps(asdict(recipe.speech)).encode()
    display.line(
        f"data: {len(train)} clips for the warm start, {len(rl)} for RL, {len(evaluation)} held out, from {path}"
    )
    return Data(train, rl, evaluation, hashlib.sha256(content).hexdigest())


def _questions(recipe: Recipe, display: Display) -> Data:
    """What a judge learns from: text, without a manifest."""
    found, digest = judge_prompts(recipe.data.labelled)
    limit = recipe.evaluation.max_clips or len(found["heldout"])
    heldout = found["heldout"][:: max(1, -(-len(found["heldout"]) // limit))]
    display.line(
        f"data: {len(found['train'])} questions for the warm start, {len(found['rl'])} for RL, {len(heldout)} held "
        f"out, from {recipe.data.labelled or 'the demo set'}"
    )
    return Data(found["train"], found["rl"], heldout, digest)


def _cut_long_clips(recipe: Recipe, prompts: Sequence[Prompt], display: Display) -> None:
    """Fill the cache that every evaluation asks. Raises DataError when there is no speech to decode at all."""
    if recipe.evaluation.long_form == "none":
        return
    with display.phase("cut long clips", len(prompts)) as phase:
        parts = parts_of(prompts, recipe, lambda done, total: phase.update(done))
    long = [part for prompt, part in zip(prompts, parts, strict=True) if part != [prompt]]
    if not any(parts):
        split = recipe.data.eval_split
        raise DataError(f"data.eval_split is {split!r}: no speech was found in any of its {len(prompts)} clips")
    display.line(f"long-form: {len(long)} held-out clips cut into {sum(map(len, long))} pieces")


def manifest_of(recipe: Recipe, display: Display) -> Path:
    """The recipe's manifest; that of a demo set is built first."""
    if recipe.data.manifest:
        return Path(recipe.data.manifest)
    name = str(recipe.data.demo)
    with display.phase(f"build data set {name}", 1) as phase:
        return demo.build(name, recipe.cache_dir, lambda done, total: phase.resize(done, total))


def prepare_model(recipe: Recipe, data: Data, display: Display) -> Path | str:
    """The checkpoint that RL starts from: a given one, a fresh tiny one, or either after its warm start.

    After a warm start with `sft.beside` it has `speech.json`; `hearing` makes of it what other branches serve.
    """
    prepare_deepspeed()  # Transformers asks DeepSpeed about its device while it builds a model
    beside = beside_of(recipe, display, manifest_of)
    model = fitted(recipe, recipe.backbone.path or _built(recipe, data, beside, display), display)
    if recipe.branch == "tts":
        model = speaking(recipe, model, [p.reference for p in data.train] if recipe.sft.steps else [])
    elif recipe.backbone.path is not None:
        model = hearing(recipe, model)
    stages = [stage for stage in STAGES if section_of(recipe, stage).steps > 0]
    for number, stage in enumerate(stages, start=1):
        name = _STAGE_NAMES[stage]
        more = [beside.digest] if beside else []
        path = Path(recipe.cache_dir, "warm_start", _digest(recipe, stages[:number], data.digest, *more)).resolve()
        if path.is_dir():
            display.line(f"{name}: skipped, {path} was made by the same recipe, data and code")
        else:
            with made_whole(path) as draft:
                courses = [Course(recipe.backbone.adapter, str(model), data.train)]
                courses += [beside.course(model)] if beside and stage == "sft" else []
                _train(recipe, stage, courses, draft, display)
            display.line(f"{name}: kept in {path}")
        model = path
    if recipe.mtp.steps + recipe.mtp.joint_steps and beside:
        model = hearing(recipe, model)
    return with_heads(recipe, data, stages, model, display)


def with_heads(recipe: Recipe, data: Data, stages: Sequence[Stage], model: Path | str, display: Display) -> Path | str:
    """The checkpoint with heads of multi-token prediction, fitted or its own; as it is where nothing drafts.

    Raises RecipeError when `rollout.speculative` asks for heads that it has not, or that are another backbone's.
    """
    if recipe.mtp.steps + recipe.mtp.joint_steps == 0:
        if recipe.rollout.speculative == "mtp":
            check_folder(Path(model))
        return model
    digest = _digest(recipe, stages, data.digest, asdict(replace(recipe.mtp, refit_below=0.0, refit_steps=1)))
    path = Path(recipe.cache_dir, "mtp", digest).resolve()
    if path.is_dir():
        display.line(f"heads: skipped, {path} was made by the same recipe, data and code")
        return path
    with made_whole(path) as draft:
        section, actor = recipe.mtp, cast(Any, MtpWorker)
        actor = actor.options(max_concurrency=2, **actor_options(section.cpus, recipe.learner.gpus))
        workers = [actor.remote(recipe) for _ in range(recipe.learner.workers)]
        given = ray.put(list(data.train))

        def start(worker: Any, meeting: Rendezvous) -> Any:
            return worker.run.remote(str(model), given, meeting, str(draft))

        run_stage(workers, start, "heads", section.steps + section.joint_steps, recipe.cluster, display)
    display.line(f"heads: kept in {path}")
    return path


def _built(recipe: Recipe, data: Data, beside: Beside | None, display: Display) -> Path:
    """The checkpoint of `backbone.build`, made on first use."""
    from policies.build import build_backbone

    backbone = recipe.backbone
    # Only a tokenizer of its own depends on the data.
    learnt = [*data.train, *(beside.prompts if beside else [])]
    texts = [text for p in learnt for text in _texts_of(p)] if backbone.build == "tiny" else []
    path = Path(recipe.cache_dir, "backbone", _hash([asdict(backbone), texts, code_version()])).resolve()
    if not path.is_dir():
        with made_whole(path) as draft:
            build_backbone(backbone, texts, draft)
        display.line(f"backbone: {backbone.build}, built in {path}")
    return path


def _texts_of(prompt: Prompt) -> list[str]:
    """All that a prompt may be written with."""
    spoken = (str(prompt.metadata[key]) for key in ("instruction", "inline") if key in prompt.metadata)
    return [prompt.reference, *spoken]


def fitted(recipe: Recipe, model: Path | str, display: Display) -> Path | str:
    """The checkpoint with the recipe's window, in layouts that pad every clip to one.

    Raises RecipeError when it is of another layout or has too few positions, and what the adapter raises.
    """
    wanted = recipe.backbone.window
    adapter = load_adapter(recipe.backbone.adapter, model)
    positions = decoder_positions(model)
    if positions < recipe.rollout.max_tokens:
        raise RecipeError(
            f"rollout.max_tokens is {recipe.rollout.max_tokens}: the decoder of {model} has {positions} positions; "
            f"lower it to {positions} or less"
        )
    covered = adapter.window()
    if covered is None or covered == wanted:
        return model
    if covered < wanted:
        raise RecipeError(f"backbone.window is {wanted:g}: the positions of {model} cover {covered:g} s; lower it")
    path = Path(recipe.cache_dir, "backbone", _hash([str(model), wanted, code_version()])).resolve()
    if not path.is_dir():
        with made_whole(path) as draft:
            adapter.cut_window(wanted, draft)
        display.line(f"backbone: its window of {covered:g} s cut to {wanted:g} s in {path}")
    return path


def _train(recipe: Recipe, stage: Stage, courses: Sequence[Course], out: Path, display: Display) -> None:
    """Run a stage on as many ranks as the learner will have, one actor each; they are gone afterwards."""
    section = section_of(recipe, stage)
    options = actor_options(section.cpus, recipe.learner.gpus)
    actor: Any = SFTWorker  # mypy does not see what `ray.remote` makes of a class
    actor = actor.options(max_concurrency=2, **options)
    workers = [actor.remote(recipe, stage) for _ in range(recipe.learner.workers)]
    given = ray.put(list(courses))

    def start(worker: Any, meeting: Rendezvous) -> Any:
        return worker.run.remote(given, meeting, str(out))

    run_stage(workers, start, _STAGE_NAMES[stage], section.steps, recipe.cluster, display)


def _digest(recipe: Recipe, stages: Sequence[Stage], data: str, *more: object) -> str:
    """Key of a checkpoint after some stages: everything that decides its weights."""
    parts = [
        asdict(recipe.backbone),
        fingerprint(recipe.backbone.path),
        {stage: asdict(section_of(recipe, stage)) for stage in stages},
        recipe.learner.workers,
        recipe.learner.zero_stage,
        data,
        *more,
    ]
    return _hash([*parts, code_version()])


def code_version() -> str:
    """Digest of the code that a warm start runs, its libraries included."""
    packages = Path(policies.__file__).parent, Path(rlhf_platform.__file__).parent
    files = sorted(packages[0].rglob("*.py"))
    files += sorted(f for part in ("learner", "data") for f in (packages[1] / part).glob("*.py"))
    used = ("torch", "transformers", "trl", "deepspeed", "peft")
    libraries = [f"{name} {importlib.metadata.version(name)}" for name in used]
    return _hash([hashlib.sha256(f.read_bytes()).hexdigest() for f in files] + libraries)


def _hash(parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]
