"""What goes wrong in a way a person can mend. Each error is a line that names the place, the value and the way out."""


class PlatformError(Exception):
    """Base of every error that is shown to a user as one line, without a traceback."""


class RecipeError(PlatformError):
    """A recipe (or an override on the command line) that cannot be run. The message starts with the key."""


class DataError(PlatformError):
    """A manifest row or an audio file that cannot be used. The message starts with the manifest and row."""


class ClusterError(PlatformError):
    """Ray, an actor or a port is not to be had."""


class WaitTimeout(PlatformError):
    """Law 3: a bounded wait ended without an answer."""

    def __init__(self, who: str, what: str, seconds: float, way_out: str = "") -> None:
        super().__init__(f"{who} waited {seconds:g} s for {what}" + (f": {way_out}" if way_out else ""))


class SyncError(PlatformError):
    """Law 4: after a weight sync the rollout engine does not hold the learner's weights."""


class RewardError(PlatformError):
    """Rewards failed more often than the recipe allows, or a reward function cannot be used."""


class RunError(PlatformError):
    """A run's folder that cannot be read, compared or exported. The message starts with the folder."""


class MonitorError(PlatformError):
    """A metric is past the limit that the recipe sets it."""
