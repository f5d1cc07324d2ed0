"""Law 3: every answer from an actor is waited for with a bound and a name."""

from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from rlhf_platform.errors import ClusterError, PlatformError, WaitTimeout


def wait(answer: Any, actor: str, task: str, seconds: float) -> Any:
    """The value of one Ray reference or of a list of them.

    Raises WaitTimeout when `seconds` pass first, ClusterError when the actor died, the actor's own PlatformError
    when it raised one; any other error of an actor is a fault of ours and comes up as it is.
    """
    try:
        return ray.get(answer, timeout=seconds)
    except GetTimeoutError:
        way_out = "raise cluster.step_timeout or cluster.start_timeout, or see the actor's log in the Ray session"
        raise WaitTimeout("the run", f"{actor} to {task}", seconds, way_out) from None
    except RayActorError as error:
        raise ClusterError(f"{actor} died while it was to {task}: {str(error).strip().splitlines()[0]}") from error
    except RayTaskError as error:
        if isinstance(error.cause, PlatformError):
            raise error.cause from None
        raise
