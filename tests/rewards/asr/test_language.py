"""Language and script of texts that a reader can tell."""

import pytest

from rewards.asr.language import CANDIDATES, language_reward, script_reward
from rewards.types import RewardInput

SENTENCES = {
    "ar": "كل الناس يولدون أحرارا متساوين في الكرامة والحقوق",
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren",
    "en": "All human beings are born free and equal in dignity and rights",
    "es": "Todos los seres humanos nacen libres e iguales en dignidad y derechos",
    "fr": "Tous les êtres humains naissent libres et égaux en dignité et en droits",
    "hi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है",
    "it": "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti",
    "ja": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である",
    "ko": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다",
    "pt": "Todos os seres humanos nascem livres e iguais em dignidade e em direitos",
    "ru": "Все люди рождаются свободными и равными в своем достоинстве и правах",
    "zh": "人人生而自由在尊严和权利上一律平等他们赋有理性和良心并应以兄弟关系的精神相对待",
}
"""The first article of the Universal Declaration of Human Rights."""


def sample(text: str, language: str, reference: str = "") -> RewardInput:
    return RewardInput("p", text, reference=reference, language=language)


def test_a_translation_is_told_from_a_transcript() -> None:
    assert sorted(SENTENCES) == sorted(CANDIDATES)
    for language, text in SENTENCES.items():
        assert [language_reward(sample(text, other)) for other in CANDIDATES] == [
            float(other == language) for other in CANDIDATES
        ]


def test_the_candidates_are_those_given_and_the_samples_own() -> None:
    dutch = "Alle mensen worden vrij en gelijk in waardigheid en rechten geboren"
    assert language_reward(sample(dutch, "nl-BE")) == 1.0
    assert language_reward(sample(dutch, "de"), languages=["nl"]) == 0.0
    assert language_reward(sample(dutch, "de"), languages=[]) == 1.0


def test_a_short_text_is_given_the_benefit_of_the_doubt() -> None:
    assert language_reward(sample("nein", "en")) == 1.0
    assert language_reward(sample("", "en")) == 1.0
    assert language_reward(sample("1" * 50, "en")) == 1.0
    assert language_reward(sample(SENTENCES["de"], "en"), min_letters=1000) == 1.0


def test_an_unknown_language_has_no_answer() -> None:
    with pytest.raises(ValueError, match="language xx is unknown to py3langid; it knows"):
        language_reward(sample("a", "xx"))
    with pytest.raises(ValueError, match="language yy is unknown to py3langid"):
        language_reward(sample("a", "en"), languages=["yy"])
    with pytest.raises(ValueError, match="language 'xx': the script that it is written in is not known"):
        script_reward(sample("a", "xx"))


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        *((text, language, 1.0) for language, text in SENTENCES.items()),
        ("ห้อง", "th", 1.0),
        ("Γειά σου", "el", 1.0),
        ("שלום", "he", 1.0),
        ("Zażółć gęślą jaźń", "pl", 1.0),
        ("об’єкт обʼєкт", "uk", 1.0),
        ("人々ラーメンｱｲｽ", "ja", 1.0),
        ("ＡＢ", "en", 1.0),
        ("Привет abcd", "ru", 6 / 10),
        ("abcd", "zh", 0.0),
        ("你好", "ko", 1.0),
        ("你好", "en", 0.0),
        ("한국", "zh", 0.0),
        ("かな", "zh", 0.0),
        ("123 !?", "ru", 1.0),
        ("", "ru", 1.0),
        ("Добар dan", "sr", 1.0),
    ],
)
def test_share_of_letters_in_the_scripts_of_the_language(text: str, language: str, expected: float) -> None:
    assert script_reward(sample(text, language)) == pytest.approx(expected)


def test_scripts_that_the_reference_uses_are_right_too() -> None:
    assert script_reward(sample("我用iPhone", "zh")) == pytest.approx(2 / 8)
    assert script_reward(sample("我用iPhone", "zh", reference="我用 iPhone")) == 1.0
