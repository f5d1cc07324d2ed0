"""The RayJob manifest against the fields of KubeRay's own resource definition, and against the recipe."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from rlhf_platform.cli.main import app
from rlhf_platform.errors import RecipeError
from rlhf_platform.jobs import kuberay
from rlhf_platform.jobs.kuberay import Pods, manifest
from rlhf_platform.recipe.files import recipe_files
from rlhf_platform.recipe.load import load_recipe

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "recipes/asr/quickstart.yaml"
DEFINITION = json.loads(Path(__file__).with_name("rayjob_fields.json").read_text())
"""Field paths and types of RayJob v1, read off the definition of the version that it names."""
TEMPLATE = ".template."
PODS = Pods("rlhf:1", "claim", "keys")


def documents(*overrides: str, pods: Pods = PODS, recipe: Path = QUICKSTART) -> tuple[dict[str, Any], dict[str, Any]]:
    loaded = load_recipe(recipe, [*overrides, "cluster.address=auto"])
    job, config = yaml.safe_load_all(manifest(loaded.recipe, recipe_files(loaded, Path("/shared")), pods))
    return job, config


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every field of a manifest with its value; `[]` stands for the items of a list."""
    if path:
        yield path, value
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, f"{path}.{name}".lstrip("."))
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item, path + "[]")


def known(path: str) -> str | None:
    """The type that the definition gives a field, None when it has no such field."""
    _, in_template, rest = path.partition(TEMPLATE)
    fields = DEFINITION["template_fields" if in_template else "fields"]
    return fields.get(rest if in_template else path)


def mistakes(job: dict[str, Any]) -> list[str]:
    found = []
    types = {"string": str, "integer": int, "boolean": bool, "array": list, "object": dict}
    inside_maps = ["metadata"]  # of every Kubernetes object, and in no definition of its own
    for path, value in leaves(job):
        if path.endswith("[]") or any(path.startswith(f"{outer}.") for outer in inside_maps):
            continue
        kind = known(path)
        if kind is None:
            found.append(f"{path}: unknown")
        elif kind.startswith("map of"):
            inside_maps.append(path)
            if not all(isinstance(key, str) and isinstance(item, str) for key, item in value.items()):
                found.append(f"{path}: not a {kind}")
        elif not isinstance(value, types[kind]) or (kind == "integer" and isinstance(value, bool)):
            found.append(f"{path} is {value!r}: not a {kind}")
    return found


def missing(job: dict[str, Any]) -> list[str]:
    """Required fields that are absent although what they belong to is there."""
    there = {path.removesuffix("[]") for path, _ in leaves(job)}
    holders = {"spec.rayClusterSpec.headGroupSpec", "spec.rayClusterSpec.workerGroupSpecs[]"}
    required = list(DEFINITION["required"])
    required += [f"{holder}{TEMPLATE}{name}" for holder in holders for name in DEFINITION["template_required"]]
    return [path for path in required if path not in there and path.rpartition(".")[0].removesuffix("[]") in there]


@pytest.mark.parametrize(
    "overrides", [(), ("learner.gpus=1", "rollout.gpus=1"), ('tracking.project="${oc.env:HOME}"',)], ids=str
)
def test_every_field_is_one_of_kuberay_s_and_none_that_it_requires_is_absent(overrides: tuple[str, ...]) -> None:
    job, _ = documents(*overrides, "rewards=[{fn: " + str(ROOT / "recipes/asr/my_rewards.py") + ":brevity}]")
    assert mistakes(job) == []
    assert missing(job) == []


def test_a_wrong_field_a_wrong_type_and_an_absent_one_are_found() -> None:
    job, _ = documents()
    del job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["groupName"]
    for group in job["spec"]["rayClusterSpec"]["workerGroupSpecs"][1:]:
        del group["groupName"]
    job["spec"]["entryPoint"] = job["spec"].pop("entrypoint")
    job["spec"]["ttlSecondsAfterFinished"] = "600"
    assert mistakes(job) == ["spec.ttlSecondsAfterFinished is '600': not a integer", "spec.entryPoint: unknown"]
    assert missing(job) == ["spec.rayClusterSpec.workerGroupSpecs[].groupName"]


def amounts(group: dict[str, Any]) -> dict[str, str]:
    (container,) = group["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == container["resources"]["requests"]
    return container["resources"]["requests"]


def test_pods_hold_what_the_recipe_s_actors_reserve() -> None:
    sizes = ("rollout.workers=2", "rollout.cpus=3", "rollout.gpus=1", "rollout.kv_cache_gib=5")
    job, _ = documents(*sizes, "learner.workers=4", "learner.gpus=1", "scoring.workers=6")
    spec = job["spec"]["rayClusterSpec"]
    rollout, learner = spec["workerGroupSpecs"]
    counts = ("replicas", "minReplicas", "maxReplicas")
    assert [rollout[key] for key in counts] == [2, 2, 2]
    assert [learner[key] for key in counts] == [4, 4, 4]
    assert amounts(rollout) == {"cpu": "3", "memory": "13Gi", "nvidia.com/gpu": "1"}
    # The warm start takes two cores a rank (sft.cpus), RL one.
    assert amounts(learner) == {"cpu": "2", "memory": "8Gi", "nvidia.com/gpu": "1"}
    # Six reward workers of a quarter of a core, beside two cores for the run itself.
    assert amounts(spec["headGroupSpec"]) == {"cpu": "4", "memory": "8Gi"}
    assert spec["headGroupSpec"]["rayStartParams"] == {"num-cpus": "2"}
    assert spec["authOptions"] == {"mode": "token"}


def test_the_size_of_a_checkpoint_that_lies_here_counts(tmp_path: Path) -> None:
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(2 * 2**30)
    job, _ = documents(f"backbone.path={tmp_path}")
    rollout, learner = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert amounts(rollout)["memory"] == "13Gi"  # 8 + 2 copies of 2 + 0.5 of KV cache
    assert amounts(learner)["memory"] == "20Gi"  # 8 + 6 copies of 2


def test_all_pods_see_recipe_rewards_storage_and_secrets_at_the_same_paths(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import near\n\ndef f(sample, key):\n    return near.ONE\n")
    (tmp_path / "near.py").write_text("ONE = 1\n")
    (tmp_path / "my.yaml").write_text(
        f"extends: {QUICKSTART}\nrewards:\n  - fn: mine.py:f\n    kwargs: {{key: '${{oc.env:HOME}}'}}\n"
    )
    job, config = documents(recipe=tmp_path / "my.yaml")
    spec = job["spec"]["rayClusterSpec"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert {(mount["mountPath"], mount.get("subPath")) for mount in container["volumeMounts"]} == {
            ("/opt/rlhf-job/recipe.yaml", "recipe.yaml"),
            ("/opt/rlhf-job/rewards/0/mine.py", "rewards__0__mine.py"),
            ("/opt/rlhf-job/rewards/0/near.py", "rewards__0__near.py"),
            ("/shared", None),
        }
        assert container["env"] == [{"name": "HOME", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "HOME"}}}]
        assert pod["volumes"] == [
            {"name": "job", "configMap": {"name": job["metadata"]["name"]}},
            {"name": "storage", "persistentVolumeClaim": {"claimName": "claim"}},
        ]
    assert config["metadata"]["name"] == job["metadata"]["name"]
    assert set(config["data"]) == {"recipe.yaml", "rewards__0__mine.py", "rewards__0__near.py"}
    recipe = yaml.safe_load(config["data"]["recipe.yaml"])
    assert (recipe["runs_dir"], recipe["cache_dir"]) == ("/shared/runs", "/shared/.cache")
    assert recipe["rewards"][0]["fn"] == "rewards/0/mine.py:f"
    assert recipe["rewards"][0]["kwargs"] == {"key": "${oc.env:HOME}"}
    assert job["spec"]["entrypoint"].endswith("run /opt/rlhf-job/recipe.yaml cluster.address=auto")


def test_names_are_kubernetes_own_and_short_enough() -> None:
    job, _ = documents("name=My_Run.With-" + "x" * 60)
    assert job["metadata"]["name"].startswith("rlhf-my-run-with-xxx")
    assert len(job["metadata"]["name"]) <= 47


def test_what_does_not_fit_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match=r"reads HOME from the environment: name the Secret with them, --secret NAME"):
        documents('tracking.project="${oc.env:HOME}"', pods=Pods("rlhf:1", "claim"))
    monkeypatch.setattr(kuberay, "CONFIG_LIMIT", 100)
    with pytest.raises(RecipeError, match="a ConfigMap holds"):
        documents()


def test_the_command_prints_the_manifest_and_says_what_is_not_in_the_claim(tmp_path: Path) -> None:
    arguments = ["submit", str(QUICKSTART), "--kuberay", "--storage-claim", "c", "--image", "mine:2"]
    result = CliRunner().invoke(app, [*arguments, f"runs_dir={tmp_path}"])
    assert result.exit_code == 0, result.output
    job, _ = yaml.safe_load_all(result.stdout)
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert head["image"] == "mine:2"
    assert result.stderr == f"runs_dir {tmp_path}: not in /shared; the image must hold it\n"
    without = CliRunner().invoke(app, arguments[:3])
    assert (without.exit_code, without.stderr.startswith("--storage-claim is missing: ")) == (2, True)
