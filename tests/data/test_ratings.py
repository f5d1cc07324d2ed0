"""Ratings of blind pairs: what is read, what is refused, and what raters say together."""

from pathlib import Path

import pytest

from rlhf_platform.data.blind_key import BlindPair, Side, read_key, write_key
from rlhf_platform.data.pairs import Answer, Pair, read_pairs, write_pairs
from rlhf_platform.data.ratings import each_rater, pairs_of, read_ratings, verdicts
from rlhf_platform.errors import DataError
from rlhf_platform.recipe.preferences import RewardModel
from rlhf_platform.types import Prompt


def blind(number: int, folder: Path, a: tuple[int, ...] | None = (1,), b: tuple[int, ...] | None = (2,)) -> BlindPair:
    prompt = Prompt(f"p{number}", str(folder / "ref.wav"), "seven", "en", duration=1.5, metadata={"instruction": ""})
    sides = (("old", a), ("new", b))
    return BlindPair(prompt, *(Side(name, Answer(tokens=t, audio=str(folder / f"{name}.wav"))) for name, t in sides))


@pytest.fixture
def key(tmp_path: Path) -> dict[str, BlindPair]:
    for name in ("ref", "old", "new"):
        (tmp_path / f"{name}.wav").touch()
    return {f"000{number}": blind(number, tmp_path) for number in (1, 2, 3)}


def sheet(folder: Path, text: str, name: str = "ratings.csv", header: str = "pair,rater,answer,reason") -> Path:
    path = folder / name
    path.write_text(f"{header}\n{text}")
    return path


def leads(text: str, key: dict[str, BlindPair], folder: Path) -> dict[str, float]:
    return {v.pair.prompt.id: v.lead for v in verdicts(read_ratings([sheet(folder, text)], key), key)}


def test_a_key_is_read_as_it_was_written_also_where_its_folder_was_moved(
    key: dict[str, BlindPair], tmp_path: Path
) -> None:
    write_key(tmp_path / "key.json", key)
    assert read_key(tmp_path / "key.json") == key
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    assert read_key(moved / "key.json")["0001"].a.answer.audio == str(moved / "old.wav")
    (moved / "key.json").write_text('{"pairs": {"0001": {}}}')
    with pytest.raises(DataError, match=r"key\.json: not a key of blind pairs"):
        read_key(moved / "key.json")


@pytest.mark.parametrize(
    ("votes", "lead"),
    [
        ("aab", 1 / 3),
        ("abb", -1 / 3),
        ("aa", 1.0),
        ("ab", 0.0),
        ("at", 0.5),
        ("att", 0.0),
        ("aabt", 0.25),
        ("aabttt", 1 / 6),
        ("aabtttt", 0.0),
    ],
)
def test_a_pair_goes_to_the_side_with_more_votes_unless_most_say_tie(
    votes: str, lead: float, key: dict[str, BlindPair], tmp_path: Path
) -> None:
    rows = "".join(f"0002,r{n},{'tie' if vote == 't' else vote},\n" for n, vote in enumerate(votes))
    assert leads(rows, key, tmp_path) == pytest.approx({"p2": lead})


def test_verdicts_become_pairs_to_learn_from(key: dict[str, BlindPair], tmp_path: Path) -> None:
    first = sheet(tmp_path, '0001,anna,B,"too fast, and flat"\n0002,anna,tie,\n0003,anna, a ,\n')
    second = sheet(tmp_path, "0001,ben,b,clips\n0002,ben,,\n0003,ben,tie,\n", "ben.csv")
    pairs = pairs_of(verdicts(read_ratings([first, second], key), key))
    assert [(p.number, p.prompt.id, p.chosen.tokens, p.margin, p.tie, p.origin.rater) for p in pairs] == [
        (1, "p1", (2,), 1.0, False, "anna, ben"),
        (2, "p2", (1,), 0.0, True, "anna"),
        (3, "p3", (1,), 0.5, False, "anna, ben"),
    ]
    assert pairs[0].origin.reason == "anna: too fast, and flat; ben: clips"
    assert {p.origin.source for p in pairs} == {"human"}
    assert pairs[0].chosen.audio == str(tmp_path / "new.wav")
    write_pairs(tmp_path / "pairs.jsonl", pairs)
    assert read_pairs(tmp_path / "pairs.jsonl", RewardModel(tie_threshold=0.69)) == pairs


def test_each_rater_may_be_a_row(key: dict[str, BlindPair], tmp_path: Path) -> None:
    file = sheet(tmp_path, "0001,anna,a,why\n0001,ben,b,\n0003,ben,tie,\n")
    pairs = pairs_of(each_rater(read_ratings([file], key), key))
    assert [(p.prompt.id, p.origin.rater, p.chosen.tokens, p.margin, p.origin.reason) for p in pairs] == [
        ("p1", "anna", (1,), 1.0, "why"),
        ("p1", "ben", (2,), 1.0, ""),
        ("p3", "ben", (1,), 0.0, ""),
    ]


def test_scores_of_samples_are_compared_by_their_means(key: dict[str, BlindPair], tmp_path: Path) -> None:
    rows = "0001_a,anna,4\n0001_a,ben,5\n0001_b,anna,2\n0002_a,anna,3\n0003_a,anna,2.5\n0003_b,ben,3\n"
    read = read_ratings([sheet(tmp_path, rows, header="sample,rater,score")], key)
    found = verdicts(read, key)
    assert [(v.pair.prompt.id, v.lead) for v in found] == [("p1", 2.5), ("p3", -0.5)]
    assert [(p.chosen.tokens, p.margin) for p in pairs_of(found)] == [((1,), 2.5), ((2,), 0.5)]
    # Anna has scored both samples of the first pair; of the third each rater has scored one.
    assert [(v.pair.prompt.id, v.raters, v.lead) for v in each_rater(read, key)] == [("p1", ("anna",), 2.0)]


def test_sides_of_the_same_tokens_make_no_pair_and_unknown_tokens_are_refused(tmp_path: Path) -> None:
    file = sheet(tmp_path, "0001,anna,a,\n")
    same = {"0001": blind(1, tmp_path, (5, 6), (5, 6))}
    assert pairs_of(verdicts(read_ratings([file], same), same)) == []
    untold = {"0001": blind(1, tmp_path, (5, 6), None)}
    with pytest.raises(DataError, match=r"prompt 'p1': the key has no tokens of 'new'.*leave --out away"):
        pairs_of(verdicts(read_ratings([file], untold), untold))


def test_all_bad_rows_are_told_at_once(key: dict[str, BlindPair], tmp_path: Path) -> None:
    rows = "0001,anna,a,\n9,anna,a,\n0002,,b,\n0002,anna,c,\n0001,anna,b,\n0003,ben,a,too, fast\n"
    file = sheet(tmp_path, rows)
    with pytest.raises(DataError) as error:
        read_ratings([file], key)
    assert str(error.value).splitlines() == [
        f"{file}: 5 rows cannot be used",
        "ratings.csv row 3: pair '9' is not in the key",
        "ratings.csv row 4: no rater; write a name or a number, the same on each row of one person",
        "ratings.csv row 5: answer is 'c'; allowed are a, b and tie",
        "ratings.csv row 6: 'anna' has rated 0001 before; keep one row",
        "ratings.csv row 7: more columns than the header has; put text that has commas between quotes",
    ]


def test_scores_that_are_none_are_told(key: dict[str, BlindPair], tmp_path: Path) -> None:
    file = sheet(tmp_path, "0001_a,anna,6\n0001_c,anna,5\n0001_b,anna,good\n", header="sample,rater,score")
    with pytest.raises(DataError) as error:
        read_ratings([file], key)
    assert str(error.value).splitlines()[1:] == [
        "ratings.csv row 2: score is 6; it must be 1 to 5",
        "ratings.csv row 3: sample '0001_c' is not in the key",
        "ratings.csv row 4: score is 'good', not a number",
    ]


def test_files_that_are_no_ratings_are_refused(key: dict[str, BlindPair], tmp_path: Path) -> None:
    votes = sheet(tmp_path, "0001,anna,a,\n")
    with pytest.raises(DataError, match=r"the first line is 'pair;rater;answer'; it must be pair,rater,answer, or "):
        read_ratings([sheet(tmp_path, "", "semicolons.csv", "pair;rater;answer")], key)
    with pytest.raises(DataError, match=r"columns are sample,rater,score, those of .*ratings\.csv pair,rater,answer"):
        read_ratings([votes, sheet(tmp_path, "0001_a,anna,3\n", "scores.csv", "sample,rater,score")], key)
    with pytest.raises(DataError, match=r"none\.csv: no such file of ratings"):
        read_ratings([tmp_path / "none.csv"], key)
    with pytest.raises(DataError, match=r"blank\.csv: nothing is rated; fill in the column answer"):
        read_ratings([sheet(tmp_path, "0001,,,\n", "blank.csv")], key)
    (tmp_path / "latin.csv").write_bytes("pair,rater,answer\n0001,Zoë,a\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.csv: not UTF-8"):
        read_ratings([tmp_path / "latin.csv"], key)


def test_a_sheet_saved_by_a_spreadsheet_is_read(key: dict[str, BlindPair], tmp_path: Path) -> None:
    (tmp_path / "excel.csv").write_bytes("pair,rater,answer,reason\r\n0001,Zoë,A,\r\n".encode("utf-8-sig"))
    (pair,) = pairs_of(verdicts(read_ratings([tmp_path / "excel.csv"], key), key))
    assert isinstance(pair, Pair)
    assert pair.origin.rater == "Zoë"
