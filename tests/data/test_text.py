import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_platform.data.text import NORMALIZERS, PLAIN, by_character, joined, normalize, reference_words, words

LANGUAGES = ["en", "fr", "tr", "zh", "ja", "ko", "th", "hi", "ar", "zh-TW", "EN_us", ""]


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("Hello,  World!", "en", "hello world"),
        ("x-ray", "en", "x ray"),
        ("Don\u2019t say 'twas the dogs' fault", "en", "don't say twas the dogs fault"),
        ("rock 'n' roll", "en", "rock n roll"),
        ("It costs $3.50 (3\u00bd)", "en", "it costs 3 50 31 2"),
        ("STRASSE stra\u00dfe", "de", "strasse strasse"),
        ("cafe\u0301 CAF\u00c9", "fr", "caf\u00e9 caf\u00e9"),
        ("L'\u00e9t\u00e9, aujourd'hui", "fr", "l'\u00e9t\u00e9 aujourd'hui"),
        ("IŞIK İzmir", "tr", "ışık izmir"),
        ("IS", "en", "is"),
        ("\uff28\uff25\uff2c\uff2c\uff2f\u3000\uff11", "en", "hello 1"),
        ("soft\u00adhyphen zero\u200bwidth", "en", "softhyphen zero width"),
        ("你好,世界 2", "zh", "你 好 世 界 2"),
        ("你好", "zh-TW", "你 好"),
        ("カ\u3099ス", "ja", "ガ ス"),
        ("한국 말", "ko", "한 국 말"),
        ("น้ำ", "th", "น้ํ า"),
        ("हिन्दी में", "hi", "हिन्दी में"),
        ("...", "en", ""),
        ("\ud800", "en", ""),
    ],
)
def test_text_is_normalised_as_written_here(text: str, language: str, expected: str) -> None:
    assert normalize(text, language) == expected


def test_word_error_is_character_error_where_words_are_not_spaced() -> None:
    assert words("你好 世界", "zh") == list("你好世界")
    assert words("hello world", "en") == ["hello", "world"]


@settings(max_examples=300)
@given(st.text(), st.sampled_from(LANGUAGES))
def test_normalising_twice_changes_nothing(text: str, language: str) -> None:
    once = normalize(text, language)
    assert normalize(once, language) == once
    assert words(text, language) == once.split()
    assert once == " ".join(once.split())


def test_every_character_between_letters_is_normalised_and_stable() -> None:
    for language in ("en", "zh"):
        for point in range(0x20000):
            once = normalize(f"a{chr(point)}b", language)
            assert normalize(once, language) == once, hex(point)


ASCII = st.text(st.characters(max_codepoint=0x7F), max_size=40)


@settings(max_examples=3_000)
@given(ASCII | st.text("aZ0' \x00\x1f-", max_size=12), st.sampled_from(LANGUAGES))
def test_the_short_way_for_ascii_finds_the_same_words(text: str, language: str) -> None:
    assert words(text, language) == NORMALIZERS[PLAIN](text, language.split("-")[0].split("_")[0].lower()).split()


def test_every_ascii_character_between_others_is_the_same_by_the_short_way() -> None:
    for point in range(0x80):
        for text in (f"a{chr(point)}b", f"{chr(point)}'a", f"a'{chr(point)}", f"0{chr(point)}'b"):
            assert words(text, "en") == NORMALIZERS[PLAIN](text, "en").split(), hex(point)


def test_words_of_references_are_remembered_and_cannot_be_changed() -> None:
    first = reference_words("Alpha, bravo!", "en")
    assert first == ("alpha", "bravo")
    assert reference_words("Alpha, bravo!", "en") is first
    assert reference_words("Alpha 2", "zh") == tuple("alpha2")
    assert reference_words("Alpha two", "en", "whisper-1") == ("alpha", "2")


def test_a_language_is_known_whatever_its_region() -> None:
    assert [by_character(language) for language in ("zh", "zh-TW", "ZH_hk", "ko", "en", "EN_us", "")] == [
        *(True, True, True, True),
        *(False, False, False),
    ]


def test_texts_in_a_row_are_joined_as_their_language_is_written() -> None:
    texts = [" one", "", "two ", "  "]
    assert [joined(texts, language) for language in ("en", "EN_us", "zh-TW")] == ["one two", "one two", "onetwo"]
    assert joined([], "en") == ""
