"""The judges of a run: models that the platform serves, an actor each, and where rewards find them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rewards.judge.worker import JudgeWorker
from rlhf_platform.recipe.judges import JudgeConfig
from rlhf_platform.recipe.rewards import served_judges
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.train.cluster import Placement
from rlhf_platform.train.waiting import wait


class Judges:
    """They load side by side, and listen on loopback alone (law 10): actors that ask them are on the same machine."""

    def __init__(self, recipe: Recipe, placement: Placement, bundles: Iterator[int]) -> None:
        self._timeout = recipe.cluster.start_timeout
        self._judges = {judge.name: judge for judge in recipe.judges}
        actor: Any = JudgeWorker  # mypy does not see what `ray.remote` makes of a class
        self._actors = {
            judge.name: actor.options(**placement.options(next(bundles), judge.cpus, judge.gpus)).remote(
                server_settings(judge, recipe)
            )
            for judge in served_judges(recipe)
        }
        self._starting = {name: actor.start.remote() for name, actor in self._actors.items()}

    def keywords(self) -> Mapping[str, Mapping[str, str]]:
        """What a reward is given of each judge, by its name, once all answer: `judge`, its URL, and where the recipe
        has them `model` and `api_key_env`. Raises what `rewards.judge.server` says of one that does not start."""
        found = {}
        for name, judge in self._judges.items():
            url = judge.url
            if name in self._starting:
                # A little more than the server's own wait, whose error shows the end of its log.
                url = wait(self._starting[name], f"the judge {name}", "load its model", self._timeout + 30.0)
            named = {"model": judge.model, "api_key_env": judge.api_key_env} if judge.url else {}
            found[name] = {"judge": url, **{key: value for key, value in named.items() if value}}
        return found

    def model(self, name: str) -> str:
        """The name of a judge's model at its address."""
        if name not in self._actors:
            return self._judges[name].model
        asked = self._actors[name].model.remote()
        return str(wait(asked, f"the judge {name}", "say what its model is called", self._timeout))


def server_settings(judge: JudgeConfig, recipe: Recipe) -> dict[str, Any]:
    """The keywords of `rewards.judge.server.JudgeServer` for one of the recipe's judges."""
    return {
        "model": judge.model,
        "folder": str(Path(recipe.cache_dir, "judges").resolve()),
        "threads": judge.threads,
        "adapter": judge.lora,
        "max_tokens": judge.max_tokens,
        "max_sequences": judge.max_sequences,
        "kv_cache_gib": judge.kv_cache_gib,
        "dtype": judge.dtype,
        "gpus": judge.gpus,
        "start_timeout": recipe.cluster.start_timeout,
        "key": f"judges[{recipe.judges.index(judge)}]",
    }
