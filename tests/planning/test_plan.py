"""Work, placement, verdict and what to change."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_platform.errors import RecipeError
from rlhf_platform.planning.changes import Change, changed, knobs, proposals
from rlhf_platform.planning.fits import Capacity, placed, this_machine, unknown_cluster
from rlhf_platform.planning.observed import Clips, clips_of, earlier_run
from rlhf_platform.planning.plan import Plan, as_json, memory_of, plan_of
from rlhf_platform.planning.sizes import sizes_of
from rlhf_platform.planning.units import count, gib, parse_size
from rlhf_platform.planning.work import encoder_passes, rollout_operations, update_operations, work_of
from rlhf_platform.recipe.algorithms import GRPO, PPO, AlgorithmConfig
from rlhf_platform.recipe.backbone import BackboneConfig
from rlhf_platform.recipe.judges import JudgeConfig
from rlhf_platform.recipe.preferences import DPO
from rlhf_platform.recipe.schema import LoraConfig, Recipe

GIB = 2**30


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    made = Recipe(name="test", algorithm=GRPO(kl_coef=0.0), runs_dir=str(tmp_path / "runs"))
    made.backbone = BackboneConfig(adapter="whisper", build="whisper_tiny_en", window=15.0)
    made.rollout.max_new_tokens, made.rollout.max_tokens = 48, 64
    made.learner.workers, made.rollout.workers = 2, 2
    return made


def cluster(**values: object) -> Capacity:
    return replace(Capacity(1, 0, None, None, None, given=True), **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "size"),
    [("80GB", 80 * 10**9), ("80GiB", 80 * GIB), ("80", 80 * GIB), ("1.5 tb", 1500 * 10**9), ("512MiB", GIB // 2)],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text, "--memory") == size


@pytest.mark.parametrize("text", ["", "GB", "80XB", "-3GB", "0", "8 0GB", "80GBs"])
def test_other_sizes_are_refused_with_a_way_out(text: str) -> None:
    with pytest.raises(RecipeError, match=r"--memory is .*expected a size above 0, as 80GB"):
        parse_size(text, "--memory")


def test_amounts_are_short() -> None:
    found = [gib(size * GIB) for size in (0, 0.0001, 0.0123, 0.5, 3.14, 74.5)]
    assert found == ["0", "<0.001", "0.012", "0.5", "3.1", "74.5"]
    assert [count(n) for n in (7, 1500, 37_472_256, 1.54e9)] == ["7", "1.5 k", "37.5 M", "1.54 G"]


def test_work_of_a_step(recipe: Recipe) -> None:
    work = work_of(recipe, sizes_of(recipe), Clips(100, 3.0, 9.0))
    assert (work.prompts, work.samples) == (16, 128)
    assert (work.audio_seconds, work.most_audio_seconds) == (48.0, 240.0)
    assert work.completion_tokens == 128 * 48
    assert work.learner_tokens == 128 * (4 + 48)
    assert work.sync_bytes == 4 * 37_472_256


def test_operations_by_hand(recipe: Recipe) -> None:
    """Decoder and head once a position forward and twice backward; 64 sequences a worker are above the ridge."""
    sizes = sizes_of(recipe)
    layers, head = sizes.total["decoder"], sizes.head
    heard = 8 * 2 * 750 * (sizes.total["encoder"] + 2 * 750 * 4 * 384)
    assert rollout_operations(recipe, sizes, 16) == heard + 2 * layers * 8 * 4 + 2 * (layers + head) * 48 * 64
    assert update_operations(recipe, sizes) == heard + 3 * 2 * 64 * (layers * 52 + head * 48)
    whole = update_operations(recipe, sizes)
    recipe.learner.lora = LoraConfig(rank=8)
    assert update_operations(recipe, sizes_of(recipe)) < whole


def test_operations_of_a_critic_by_hand(recipe: Recipe) -> None:
    """64 samples a rank, each alone with its clip: looked at once by policy, reference and critic, then learnt. The
    critic has no output head, and on a trunk no backward pass."""
    recipe.rollout.prompts_per_step, sizes = 128, sizes_of(recipe)
    layers, head = 2 * 64 * sizes.total["decoder"] * 52, 2 * 64 * sizes.head * 48
    heard = 64 * 2 * 750 * (sizes.total["encoder"] + 2 * 750 * 4 * 384)
    recipe.algorithm = PPO(minibatches=2)
    assert update_operations(recipe, sizes) == heard + (layers + head) * (1 + 1 + 3) + layers * (1 + 3)
    recipe.algorithm = PPO(minibatches=2, critic="trunk", epochs=2)
    assert update_operations(recipe, sizes) == heard + (layers + head) * (1 + 1 + 6) + layers * (1 + 2)
    recipe.learner.activation_checkpointing = True
    assert update_operations(recipe, sizes) == heard + (layers + head) * (1 + 1 + 6) + layers * (1 + 2) + layers * 2


def test_an_encoder_is_heard_in_every_forward_where_its_output_is_not_kept(recipe: Recipe) -> None:
    """8 samples of each clip. At ZeRO 3 look, reference and learning; an encoder that learns has a backward pass."""
    recipe.algorithm = GRPO()
    assert encoder_passes(recipe, sizes_of(recipe)) == 1 / 8
    recipe.learner.zero_stage = 3
    assert encoder_passes(recipe, sizes_of(recipe)) == 3 / 8
    recipe.learner.freeze_encoder = False
    assert encoder_passes(recipe, sizes_of(recipe)) == 5 / 8
    recipe.algorithm = PPO(group_size=8)
    assert encoder_passes(recipe, sizes_of(recipe)) == (1 + 1 + 1 + 1 + 1 + 2 + 2) / 8


def test_work_of_a_round(recipe: Recipe) -> None:
    """40 optimiser steps in 4 rounds, 6 pairs each: 120 answers a round, of 16 prompts at a time out of 100 clips."""
    recipe.algorithm, sizes = DPO(batch_size=6, rounds=4), sizes_of(recipe)
    work = work_of(recipe, sizes, Clips(100, 3.0, 9.0))
    assert (work.prompts, work.samples, work.answers) == (16, 16 * 8, 120)
    assert (work.optimiser_steps, work.sync_bytes) == (10, 0)
    assert work.learner_tokens == 120 * (4 + 48)
    assert work_of(recipe, sizes, None).prompts == 60
    recipe.data.pairs = "pairs.jsonl"
    given = work_of(recipe, sizes, None)
    assert (given.prompts, given.samples, given.answers) == (0, 0, 120)
    assert (given.arithmetic["rollout"], given.bottleneck) == (0.0, "update")


def test_few_sequences_wait_for_the_weights(recipe: Recipe) -> None:
    sizes = sizes_of(recipe)
    alone = rollout_operations(recipe, sizes, 16)
    recipe.rollout.gpus = 1
    assert rollout_operations(recipe, sizes, 16) > 2 * alone


def test_actors_are_placed_in_order_one_gpu_each(recipe: Recipe) -> None:
    recipe.rollout.gpus = recipe.learner.gpus = 1
    places = placed(recipe, cluster(nodes=2, gpus=2))
    found = [(p.kind, p.index, p.node, p.gpu) for p in places]
    assert found == [
        ("rollout", 0, 0, 0),
        ("rollout", 1, 0, 1),
        ("learner", 0, 1, 0),
        ("learner", 1, 1, 1),
        ("reward", 0, 0, None),
    ]
    assert [p.node for p in placed(recipe, cluster(gpus=3))] == [0, 0, 0, None, 0]


def test_cores_decide_too(recipe: Recipe) -> None:
    assert [p.node for p in placed(recipe, cluster(nodes=3, cpus=2.0))] == [0, 0, 1, 1, 2]
    plan = plan_of(recipe, cluster(cpus=3.0))
    assert plan.fit.problems == ["no place for 1 learner, 1 reward: all actors reserve 4.25 cores, there are 3 cores"]
    assert changes(plan)[0] == {"rollout.workers": 1, "learner.workers": 1}


def changes(plan: Plan) -> list[dict[str, object]]:
    return [{change.key: change.value for change in proposal} for proposal in plan.proposals]


CLUSTERS = {
    "small machine": cluster(memory=16 * GIB),
    "smaller machine": cluster(memory=8 * GIB),
    "two small machines": cluster(nodes=2, memory=6 * GIB, cpus=3.0),
    "two GPUs": cluster(gpus=2, gpu_memory=24 * GIB),
    "four small GPUs": cluster(gpus=4, gpu_memory=3 * GIB, memory=64 * GIB),
}


@pytest.mark.parametrize("capacity", CLUSTERS.values(), ids=CLUSTERS.keys())
def test_each_proposal_makes_it_fit_and_nothing_in_it_is_needless(recipe: Recipe, capacity: Capacity) -> None:
    recipe.learner.micro_batch_size, recipe.rollout.kv_cache_gib = 128, 3.0
    if capacity.gpus:
        recipe.rollout.gpus = recipe.learner.gpus = 1
    plan = plan_of(recipe, capacity)
    assert plan.fit.problems
    assert plan.proposals
    for proposal in plan.proposals:
        assert not plan_of(changed(recipe, proposal), capacity).fit.problems
        for left_out in proposal:
            rest = tuple(change for change in proposal if change is not left_out)
            assert plan_of(changed(recipe, rest), capacity).fit.problems
    keys = [set(found) for found in changes(plan)]
    assert not any(first <= later for i, first in enumerate(keys) for later in keys[i + 1 :])


def test_a_critic_and_checkpointing_are_proposed_where_they_are_enough(recipe: Recipe) -> None:
    """Halving the micro-batch is enough for the first, nothing smaller than a trunk for the second: between what a
    copy takes with a micro-batch of one and what a trunk does."""
    recipe.algorithm, recipe.learner.micro_batch_size = PPO(), 1
    whole, trunk = (
        memory_of(changed(recipe, change), None) for change in ((), (Change("algorithm.critic", "trunk", 1),))
    )
    most = (whole["learner"].on_host + trunk["learner"].on_host) // 2

    def fits(other: Recipe) -> bool:
        return memory_of(other, None)["learner"].on_host <= most

    found = proposals(recipe, fits, lambda _: True)
    assert ["algorithm.critic=trunk"] in [[str(change) for change in proposal] for proposal in found]
    recipe.algorithm, recipe.learner.micro_batch_size = GRPO(kl_coef=0.0), 32
    most = memory_of(changed(recipe, (Change("learner.activation_checkpointing", True, 1),)), None)["learner"].on_host
    found = proposals(recipe, fits, lambda _: True)
    assert ["learner.activation_checkpointing=true"] in [[str(change) for change in p] for p in found]


def test_offload_is_proposed_with_the_stage_that_it_needs(recipe: Recipe) -> None:
    recipe.rollout.gpus = recipe.learner.gpus = recipe.learner.workers = 1
    stage = {"learner.zero_stage": 1}
    optimizer = changed(recipe, (Change("learner.zero_stage", 1, 1), Change("learner.offload", "optimizer", 1)))
    most = memory_of(optimizer, None)["learner"].on_device

    def fits(other: Recipe) -> bool:
        return memory_of(other, None)["learner"].on_device <= most and other.learner.micro_batch_size == 32

    found = proposals(recipe, fits, lambda proposal: all(c.key != "learner.lora.rank" for c in proposal))
    keys = [{change.key: change.value for change in proposal} for proposal in found]
    assert stage | {"learner.offload": "optimizer"} in keys


def test_nothing_is_proposed_that_an_algorithm_does_not_have(recipe: Recipe) -> None:
    def keys(algorithm: AlgorithmConfig) -> set[str]:
        recipe.algorithm = algorithm
        return {change.key for changes in knobs(recipe) for change in changes}

    assert "algorithm.critic" in keys(PPO())
    assert "algorithm.critic" not in keys(PPO(critic="trunk"))
    assert "algorithm.critic" not in keys(GRPO())
    assert "learner.micro_batch_tokens" in keys(GRPO())
    assert "learner.micro_batch_tokens" not in keys(DPO())
    assert "learner.offload" not in keys(GRPO())


def test_the_recipe_is_not_touched_and_what_is_not_allowed_not_proposed(recipe: Recipe) -> None:
    capacity = cluster(memory=8 * GIB)
    before = repr(recipe)
    first = changes(plan_of(recipe, capacity))
    assert repr(recipe) == before
    plan = plan_of(recipe, capacity, allowed=lambda proposal: not set(first[0]) & {c.key for c in proposal})
    assert not any(set(first[0]) & set(found) for found in changes(plan))


def test_what_does_not_fit_at_all_is_said(recipe: Recipe) -> None:
    plan = plan_of(recipe, cluster(memory=GIB))
    assert plan.fit.problems
    assert plan.proposals == []


def test_this_machine_has_the_cores_that_a_local_run_starts_ray_with(recipe: Recipe) -> None:
    capacity = this_machine(recipe)
    assert capacity.cpus == recipe.cluster.cpus + 1
    assert capacity.memory is not None


def test_an_earlier_run_of_the_name_is_asked_first(recipe: Recipe, tmp_path: Path) -> None:
    assert earlier_run(recipe) is None
    for name, rollout in (("test", 9.0), ("test-2", 2.0), ("test-other", 1.0)):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        row = {"seconds/rollout": rollout, "seconds/update": 5.0, "seconds": 7.0, "completion_tokens": 12.0}
        # What a kill leaves of the last line, and a line of an evaluation on the way.
        lines = [json.dumps({"heldout_wer": 0.1}), json.dumps(row), json.dumps(row), '{"seconds/roll']
        (folder / "metrics.jsonl").write_text("\n".join(lines))
    found = earlier_run(recipe)
    assert found is not None
    assert found.path.name == "test-2"
    assert (found.steps, found.seconds, found.completion_tokens) == (2, {"rollout": 2.0, "update": 5.0}, 12.0)
    plan = plan_of(recipe, cluster())
    assert plan.bottleneck == "update"
    assert as_json(plan)["earlier_run"]["seconds"]["update"] == 5.0


def test_clips_are_those_of_the_split_that_rl_draws_from(recipe: Recipe, tmp_path: Path) -> None:
    recipe.data.demo, recipe.cache_dir = "digits", str(tmp_path)
    assert clips_of(recipe) is None
    rows = [("a", 1.0, "train"), ("b", 2.0, "rl"), ("c", 4.0, "rl"), ("d", 9.0, "heldout")]
    common = {"audio": "x.wav", "text": "one", "language": "en", "speaker": "me", "licence": "CC0-1.0"}
    path = tmp_path / "manifest.jsonl"
    (tmp_path / "x.wav").touch()
    path.write_text("".join(json.dumps(common | {"id": i, "duration": d, "split": s}) + "\n" for i, d, s in rows))
    recipe.data.manifest, recipe.data.rl_split = str(path), "rl"
    found = clips_of(recipe)
    assert found is not None
    assert (found.number, found.mean_seconds, found.longest_seconds) == (2, 3.0, 4.0)


def test_json_has_everything_that_is_shown(recipe: Recipe) -> None:
    found = as_json(plan_of(recipe, cluster(memory=64 * GIB)))
    json.dumps(found)
    assert found["fits"] is found["judged"] is True
    assert found["parameters"]["trainable"] == 29_551_872
    assert set(found["actors"]) == {"rollout", "learner", "reward"}
    assert len(found["placement"]) == 5


def test_judges_have_a_place_and_their_weights_are_counted(recipe: Recipe) -> None:
    small = JudgeConfig("small", model="smollm2", kv_cache_gib=0.5)
    large = JudgeConfig("large", model="owner/of-a-hub", gpus=2, cpus=1.0)
    recipe.judges = [small, large, JudgeConfig("elsewhere", url="http://127.0.0.1:1/v1")]
    plan = plan_of(recipe, cluster(gpus=2))
    # SmolLM2-135M, head and embedding in one: 49,152 x 576; 30 layers of 7 matrices and 2 norms; a norm at the end.
    layer = 2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536 + 2 * 576
    assert plan.actors["judge small"].host["weights"] == 2 * (49_152 * 576 + 30 * layer + 576)
    assert plan.actors["judge small"].host["KV cache"] == GIB // 2
    assert "weights" not in plan.actors["judge large"].device, "planning downloads nothing"
    assert "judge elsewhere" not in plan.actors
    assert [(p.kind, p.gpu) for p in plan.fit.places if p.kind.startswith("judge")] == [
        ("judge small", None),
        ("judge large", 0),
    ]
    assert unknown_cluster(recipe).gpus == 2
