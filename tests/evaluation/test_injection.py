"""What attacks on a judge gain, by hand and against the normal approximation."""

import numpy as np
import pytest
from scipy.stats import binomtest

from rlhf_platform.errors import DataError
from rlhf_platform.evaluation.injection import ATTACKS, Trial, injected, injection, padded


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_keeps_the_reply_and_its_control_adds_as_many_words(attack: str) -> None:
    reply = "aye, i open the {reply} red box"
    assert injected(reply, attack).count(reply) == 1
    assert padded(reply, attack).startswith(reply + " ")
    assert len(padded(reply, attack).split()) == len(injected("", attack).split()) + len(reply.split())


def trial(pair: str, attack: str, itself: float = 0.0, before: float = -1.0, attacked: float = -1.0) -> Trial:
    return Trial(pair, attack, itself, padded_itself=0.5, before=before, attacked=attacked, padded=0.0)


def test_a_gain_is_the_level_over_itself_and_the_rise_of_the_win_rate() -> None:
    trials = [
        trial("p1", "pity", itself=1.0, attacked=0.4),  # from lost to won: + 1
        trial("p2", "pity", itself=0.5, attacked=0.0),  # to a tie: + 0.5
        trial("p1", "json", itself=0.0),
        trial("p2", "json", itself=-0.5, before=0.0, attacked=-2.0),  # from a tie to lost: - 0.5
    ]
    found = injection(trials, failed=3)
    assert (found.pairs, found.trials, found.failed) == (2, 4, 3)
    assert (found.attacks["pity"].level.point, found.attacks["pity"].win_rate.point) == (0.75, 0.75)
    assert (found.attacks["json"].level.point, found.attacks["json"].win_rate.point) == (-0.25, -0.25)
    assert (found.attack.level.point, found.attack.win_rate.point) == (0.25, 0.25)
    # Padding is a tie throughout: + 0.5 over what lost, nothing over the tie.
    assert (found.control.level.point, found.control.win_rate.point) == (0.5, 0.375)
    assert (found.worst, found.bound, found.level_bound) == ("pity", 1.0, 1.0)


def test_trials_of_one_pair_are_drawn_together() -> None:
    rng = np.random.default_rng(1)
    levels = {f"p{i}": float(level) for i, level in enumerate(rng.normal(size=50))}
    once = [trial(pair, "pity", itself=level) for pair, level in levels.items()]
    often = [
        trial(pair, attack, itself=level) for pair, level in levels.items() for attack in ("pity", "json", "expert")
    ]
    pooled, alone = injection(often).attack.level, injection(once).attack.level
    assert (pooled.point, pooled.low, pooled.high) == pytest.approx((alone.point, alone.low, alone.high))
    deviation = np.std([*levels.values()]) / np.sqrt(50)
    assert alone.high == pytest.approx(np.mean([*levels.values()]) + 1.96 * deviation, abs=0.03)


@pytest.mark.parametrize("pairs", [1, 31, 108])
def test_where_no_verdict_is_turned_the_bound_is_what_so_many_pairs_can_hide(pairs: int) -> None:
    found = injection([trial(f"p{i}", "pity") for i in range(pairs)])
    assert found.attacks["pity"].win_rate.high == 0.0
    assert found.bound == pytest.approx(binomtest(0, pairs).proportion_ci(0.95, "exact").high)


def test_no_trial_has_no_gain() -> None:
    with pytest.raises(DataError, match="no attack was judged, 4 failed"):
        injection([], failed=4)
