"""Agreement of raters, against published examples and by hand."""

import numpy as np
import pytest

from rlhf_platform.evaluation.agreement import alpha

# Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011: four observers, twelve units, values 1 to 5,
# data missing. Printed there: alpha 0.815 for ordinal data.
OBSERVERS = (
    "1 2 3 3 2 1 4 1 2 . . .",
    "1 2 3 3 2 2 4 1 2 5 . 3",
    ". 3 3 3 2 3 4 2 2 5 1 .",
    "1 2 3 3 2 4 4 1 2 5 1 .",
)


def rated(observers: tuple[str, ...]) -> list[tuple[str, str, float]]:
    return [
        (f"unit {unit}", f"observer {observer}", float(value))
        for observer, row in enumerate(observers)
        for unit, value in enumerate(row.split())
        if value != "."
    ]


def test_the_published_ordinal_example() -> None:
    found = alpha(rated(OBSERVERS))
    assert not isinstance(found, str)
    assert found.point == pytest.approx(0.815, abs=5e-4)
    assert found.low < found.point < found.high


def test_a_tie_is_between_the_two_sides() -> None:
    # Votes -1, 0, 1 of two raters on four pairs: (1, 1), (-1, -1), (0, 0), and one on which they differ.
    # By hand, the last (0, 1): n = 2, 3, 3; ordinal distances -1:0 (2+3-5/2)^2 = 6.25, 0:1 (3+3-3)^2 = 9,
    # -1:1 (2+3+3-5/2)^2 = 30.25. Observed 2*9 = 18; expected 2*(6*6.25 + 9*9 + 6*30.25)/7 = 600/7.
    near = alpha(rated(("1 -1 0 0", "1 -1 0 1")))
    # The last (-1, 1): n = 3, 2, 3; -1:0 (3+2-5/2)^2 = 6.25 = 0:1, -1:1 (3+2+3-3)^2 = 25.
    # Observed 2*25 = 50; expected 2*(6*6.25 + 6*6.25 + 9*25)/7 = 600/7.
    far = alpha(rated(("1 -1 0 -1", "1 -1 0 1")))
    assert not isinstance(near, str)
    assert not isinstance(far, str)
    assert near.point == pytest.approx(1 - 18 * 7 / 600)
    assert far.point == pytest.approx(1 - 50 * 7 / 600)


def test_full_agreement_is_one_and_stays_one_in_every_draw() -> None:
    found = alpha(rated(("1 -1 0 1", "1 -1 0 1")))
    assert not isinstance(found, str)
    assert (found.point, found.low, found.high) == (1.0, 1.0, 1.0)


def test_raters_who_guess_agree_as_chance_does() -> None:
    rng = np.random.default_rng(0)
    guesses = [(str(item), rater, float(rng.integers(-1, 2))) for item in range(400) for rater in "ab"]
    found = alpha(guesses, resamples=300)
    assert not isinstance(found, str)
    assert abs(found.point) < 0.15
    assert found.low < 0 < found.high


def test_more_items_narrow_the_interval() -> None:
    few, many = (alpha(rated(tuple(" ".join([row] * n) for row in OBSERVERS)), resamples=300) for n in (1, 16))
    assert not isinstance(few, str)
    assert not isinstance(many, str)
    # The width falls with the root of the number of items: to a quarter.
    assert (many.high - many.low) / (few.high - few.low) == pytest.approx(0.25, abs=0.1)


def test_where_there_is_no_alpha_the_reason_is_said() -> None:
    assert alpha([("1", "anna", 1.0), ("2", "ben", 0.0)]) == "no item has ratings of two raters"
    assert alpha([]) == "no item has ratings of two raters"
    alike = "all ratings are the same, so chance cannot be told from agreement"
    assert alpha(rated(("1 1 1", "1 1 ."))) == alike
    # What one rater alone said does not count.
    assert alpha([*rated(("1 1", "1 1")), ("alone", "anna", -1.0)]) == alike
