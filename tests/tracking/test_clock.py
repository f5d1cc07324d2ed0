import pytest

from rlhf_platform.tracking import clock as module
from rlhf_platform.tracking.clock import PhaseClock


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the clock reads, in seconds; a test moves it by hand."""
    time = [100.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: time[0])
    return time


def test_time_in_a_phase_is_added_up_by_name(now: list[float]) -> None:
    clock = PhaseClock()
    for name, seconds in (("rollout", 2.0), ("update", 3.0), ("rollout", 0.5)):
        with clock.phase(name):
            now[0] += seconds
        now[0] += 10.0  # between phases nothing is counted
    assert clock.seconds() == {"seconds/rollout": 2.5, "seconds/update": 3.0, "seconds": 5.5}


def test_a_phase_that_fails_is_counted_and_its_error_goes_on(now: list[float]) -> None:
    clock = PhaseClock()

    def fail() -> None:
        with clock.phase("reward"):
            now[0] += 1.5
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert clock.seconds() == {"seconds/reward": 1.5, "seconds": 1.5}


def test_a_clock_without_phases_has_spent_nothing() -> None:
    assert PhaseClock().seconds() == {"seconds": 0}
