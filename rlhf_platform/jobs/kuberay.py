"""A recipe as a KubeRay RayJob: a manifest for `kubectl apply`, made from what the recipe's actors reserve."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from rlhf_platform.errors import RecipeError
from rlhf_platform.jobs.submission import entrypoint
from rlhf_platform.recipe.files import RecipeFiles
from rlhf_platform.recipe.rewards import light_cores
from rlhf_platform.recipe.schema import Recipe

STORAGE = "/shared"
"""Where the pods see the claim."""
MOUNT = "/opt/rlhf-job"
"""Where the pods see the recipe and its reward files."""
CONFIG_LIMIT = 2**20
"""Bytes of a ConfigMap, a bound of Kubernetes."""
NAME_LENGTH = 47
"""Longest name of a RayJob, a bound of KubeRay: its pods' names grow from it."""
KEPT_SECONDS = 600
"""The pods stay for so long after the end, to be looked at."""
HEAD_CPUS, HEAD_GIB, WORKER_GIB = 2, 8, 8
"""For the run's own process and Ray's on the head; for a worker's libraries, before its model."""
ROLLOUT_COPIES, LEARNER_COPIES = 2, 6
"""Of the model's files in memory: engine and the update on its way; weights, gradients, two moments, the reference,
and the weights gathered for a sync."""


@dataclass(frozen=True)
class Pods:
    """What the cluster brings, by the names it has there."""

    image: str
    claim: str
    """A PersistentVolumeClaim that many pods may write to."""
    secret: str | None = None
    """Holds the values that the recipe reads from the environment, each under its name."""


def manifest(recipe: Recipe, files: RecipeFiles, pods: Pods) -> str:
    """Two YAML documents, the RayJob and its ConfigMap.

    Raises `RecipeError` when variables need a Secret, or the files do not fit into a ConfigMap.
    """
    if files.variables and not pods.secret:
        names = ", ".join(files.variables)
        raise RecipeError(f"the recipe reads {names} from the environment: name the Secret with them, --secret NAME")
    name = _name(files)
    documents = [_job(name, recipe, files, pods), _config(name, files)]
    return "---\n".join(yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=120) for document in documents)


class _Dumper(yaml.SafeDumper):
    """Files as blocks that a person can read, and no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _block(dumper: yaml.SafeDumper, text: str) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _block)


def _name(files: RecipeFiles) -> str:
    """Lower-case letters, digits and dashes, as Kubernetes wants; the digest tells two versions apart."""
    plain = re.sub(r"[^a-z0-9]+", "-", files.name.lower()).strip("-")
    return f"rlhf-{plain[: NAME_LENGTH - 12].strip('-')}-{files.digest[:6]}"


def _job(name: str, recipe: Recipe, files: RecipeFiles, pods: Pods) -> dict[str, Any]:
    light = max(1, light_cores(recipe))
    weights = _weights_gib(files)
    rollout, learner = recipe.rollout, recipe.learner
    stages = [section.cpus for section in (recipe.align, recipe.sft) if section.steps > 0]
    pod = _PodMaker(name, files, pods)
    # Ray is told of the reward workers' cores alone, so that no other actor is placed beside the run's own process.
    head = pod.template("ray-head", HEAD_CPUS + light, HEAD_GIB, 0)
    groups = [
        ("rollout", rollout.workers, rollout.cpus, ROLLOUT_COPIES * weights + rollout.kv_cache_gib, rollout.gpus),
        ("learner", learner.workers, max([learner.cpus, *stages]), LEARNER_COPIES * weights, learner.gpus),
    ]
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": name, "labels": _LABELS},
        "spec": {
            "entrypoint": entrypoint(f"{MOUNT}/recipe.yaml"),
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "rayClusterSpec": {
                "rayVersion": version("ray"),
                "authOptions": {"mode": "token"},
                "headGroupSpec": {"rayStartParams": {"num-cpus": str(light)}, "template": head},
                "workerGroupSpecs": [
                    {
                        "groupName": group,
                        "replicas": count,
                        "minReplicas": count,
                        "maxReplicas": count,
                        "rayStartParams": {},
                        "template": pod.template("ray-worker", cpus, WORKER_GIB + math.ceil(extra), gpus),
                    }
                    for group, count, cpus, extra, gpus in groups
                ],
            },
        },
    }


_LABELS = {"app.kubernetes.io/name": "rlhf-platform"}


@dataclass(frozen=True)
class _PodMaker:
    """What head and workers have in common."""

    name: str
    files: RecipeFiles
    pods: Pods

    def template(self, container: str, cpus: int, memory_gib: int, gpus: int) -> dict[str, Any]:
        amounts = {"cpu": str(cpus), "memory": f"{memory_gib}Gi"} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
        variables = [
            {"name": variable, "valueFrom": {"secretKeyRef": {"name": self.pods.secret, "key": variable}}}
            for variable in self.files.variables
        ]
        # Each file by a subPath: a whole ConfigMap is mounted by way of links whose targets differ from pod to pod,
        # and reward workers read the paths that the head has resolved.
        mounts = [
            {"name": "job", "mountPath": f"{MOUNT}/{path}", "subPath": _key(path), "readOnly": True}
            for path in ("recipe.yaml", *sorted(self.files.rewards))
        ]
        return {
            "metadata": {"labels": _LABELS},
            "spec": {
                "containers": [
                    {
                        "name": container,
                        "image": self.pods.image,
                        **({"env": variables} if variables else {}),
                        "resources": {"requests": amounts, "limits": amounts},
                        "volumeMounts": [*mounts, {"name": "storage", "mountPath": STORAGE}],
                    }
                ],
                "volumes": [
                    {"name": "job", "configMap": {"name": self.name}},
                    {"name": "storage", "persistentVolumeClaim": {"claimName": self.pods.claim}},
                ],
            },
        }


def _config(name: str, files: RecipeFiles) -> dict[str, Any]:
    data = {_key("recipe.yaml"): files.recipe}
    data |= {_key(path): _text(file) for path, file in sorted(files.rewards.items())}
    size = sum(len(text.encode()) for text in data.values())
    if size > CONFIG_LIMIT:
        raise RecipeError(
            f"recipe and reward files take {size / 2**20:.1f} MiB, a ConfigMap holds {CONFIG_LIMIT / 2**20:g}: put the "
            "reward functions into the image and name them as package.module:name"
        )
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": _LABELS}, "data": data}


def _key(path: str) -> str:
    """A ConfigMap's keys hold no slash."""
    key = path.replace("/", "__")
    if not re.fullmatch(r"[-._a-zA-Z0-9]{1,253}", key):
        raise RecipeError(f"the reward file {path!r}: a ConfigMap takes letters, digits and ._- in names; rename it")
    return key


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except UnicodeDecodeError:
        raise RecipeError(f"the reward file {file} is not UTF-8 text: save it as such") from None


def _weights_gib(files: RecipeFiles) -> float:
    """Of the checkpoint when it lies on this machine too; 0 when it is unknown."""
    folder = Path(files.elsewhere.get("backbone.path", ""))
    known = folder.is_absolute() and folder.is_dir()
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 2**30 if known else 0.0


def unknown_memory(recipe: Recipe, files: RecipeFiles) -> bool:
    """Whether the model's size is not known here, so that its memory is not in the manifest."""
    return recipe.backbone.path is not None and _weights_gib(files) == 0


def storage_notes(files: RecipeFiles) -> Mapping[str, str]:
    """Paths by key that do not lie in the claim."""
    paths = {"runs_dir": files.runs_dir, "cache_dir": files.cache_dir, **files.elsewhere}
    return {key: path for key, path in paths.items() if not Path(path).is_relative_to(STORAGE)}
