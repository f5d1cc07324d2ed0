"""The judge actor: a thin shell around `rewards.judge.server`."""

from typing import Any

import ray

from rewards.judge.server import JudgeServer


@ray.remote
class JudgeWorker:
    """Serves a judge on the machine that it is placed on; reserve cores and GPUs with `.options(...)`.

    `settings`: the keywords of `JudgeServer`.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self._server = JudgeServer(**settings)

    def start(self) -> str:
        """Start it; its address. Raises as `JudgeServer.start`."""
        return self._server.start()

    def model(self) -> str:
        """Name of the served model."""
        return self._server.model

    def healthy(self) -> bool:
        """Whether it answers now."""
        return self._server.healthy()

    def close(self) -> None:
        """Kill the server."""
        self._server.close()
