"""Actors of one kind, called as one; each call is a bounded wait."""

from collections.abc import Mapping, Sequence
from typing import Any

from rlhf_platform.recipe.schema import ClusterConfig
from rlhf_platform.train.waiting import wait


class Workers:
    """Actors of one kind, called together; each call is one bounded wait."""

    def __init__(self, kind: Any, name: str, timeouts: ClusterConfig, options: Sequence[Any], arguments: Any) -> None:
        """One actor of class `kind` for each of `options`; `name`: what they are called in errors."""
        self._actors = [kind.options(**each).remote(*arguments) for each in options]
        self._name, self._timeouts = name, timeouts

    def random_states(self) -> list[dict[str, Any]]:
        """Of each actor's process, in order."""
        found: list[dict[str, Any]] = self._all("random_state", "say where their random generators stand")
        return found

    def set_random_states(self, states: Sequence[Mapping[str, Any]]) -> None:
        """What `random_states` gave, to as many actors."""
        self._each("set_random_state", states, "set their random generators")

    def _all(self, method: str, task: str, *arguments: Any, timeout: float = 0.0) -> list[Any]:
        """Call a method of every actor with the same arguments; the answers in order."""
        answers = [getattr(actor, method).remote(*arguments) for actor in self._actors]
        return list(wait(answers, self._name, task, timeout or self._timeouts.step_timeout))

    def _each(self, method: str, arguments: Sequence[Any], task: str, timeout: float = 0.0) -> list[Any]:
        """Call a method of the first actors with an argument of its own each; the answers in order."""
        answers = [getattr(actor, method).remote(it) for actor, it in zip(self._actors, arguments, strict=False)]
        return list(wait(answers, self._name, task, timeout or self._timeouts.step_timeout))

    def _deal(self, items: Sequence[Any]) -> list[list[Any]]:
        """The items in equal shares, in order, at most one share for each actor."""
        share = -(-len(items) // len(self._actors))
        return [list(items[i : i + share]) for i in range(0, len(items), share)]
