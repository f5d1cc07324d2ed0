"""How a run ended, written down whatever ends it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from rlhf_platform.errors import PlatformError
from rlhf_platform.tracking.progress import Display
from rlhf_platform.tracking.run_dir import RunDir


@contextmanager
def accounted(folder: RunDir, display: Display) -> Iterator[None]:
    """Write into status.json how the run ended, also when it is interrupted (Ctrl-C or SIGTERM)."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    folder.status()
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        # Ray answers SIGTERM with SystemExit once it is up.
        folder.status(state="interrupted")
        display.line(f"interrupted; {folder.path / 'status.json'} says how far it came")
        raise KeyboardInterrupt from None
    except PlatformError as error:
        folder.status(state="failed", error=str(error))
        raise
    except BaseException as error:
        folder.status(state="failed", error=f"{type(error).__name__}: {error}")
        raise
    else:
        folder.status(state="finished", phase="done")
    finally:
        signal.signal(signal.SIGTERM, previous)
