"""Makes the recordings in recipes/speech/ from the Asterisk telephone system's prompts.

On Debian or Ubuntu, without root:

    apt-get download asterisk-core-sounds-en-g722 asterisk-core-sounds-en
    dpkg-deb -x asterisk-core-sounds-en-g722_*.deb sounds
    dpkg-deb -x asterisk-core-sounds-en_*.deb sounds
    python -m rlhf_platform.data.extract_asterisk sounds recipes/speech

writes digits/WORD.flac, one word each, and prompts/prompts.zip, the prompts that are sentences or parts of one with
what is said in them. The recordings are stored whole; trimming is up to who uses them.
"""

import gzip
import hashlib
import re
import sys
import zipfile
from pathlib import Path

import soundfile as sf

from rlhf_platform.data.digits import VOCABULARY
from rlhf_platform.data.prompts import ARCHIVE, TRANSCRIPTS, decode_g722
from rlhf_platform.data.text import words
from rlhf_platform.errors import DataError

SOURCES = {word: f"digits/{index}.g722" for index, word in enumerate(VOCABULARY)}
"""The recording of each word, below the voice's folder."""

CORRECTIONS = {
    "confbridge-mute-extended": ("can not", "cannot"),
    "de-activated": ("De-activated", "Deactivated"),
    "demo-nogo": ("I am afraid", "I'm afraid"),
    "dir-instr": ("you are", "you're"),
    "dir-intro": ("touch tone", "touchtone"),
    "dir-intro-fn": ("touch tone", "touchtone"),
    "followme/pls-hold-while-try": ("you are", "you're"),
    "followme/sorry": ("you are", "you're"),
    "invalid": ("I am sorry, that's", "I'm sorry, that is"),
    "letters/exclaimation-point": ("exclaimation-point [!]", "exclamation point"),
    "pbx-invalid": ("I am sorry, that's", "I am sorry, but that's"),
    "pbx-invalidpark": ("I am sorry, there", "I am sorry, but there"),
    "privacy-unident": ("you are", "you're"),
    "queue-periodic-announce": ("represenatives", "representatives"),
    "unidentified-no-callback": ("Un-indentified or witheld", "Unidentified or withheld"),
    "vm-forwardoptions": ("prepend a message", "prepend the message"),
    "vm-intro": (" (simple tone sound plays)", ""),
    "vm-mailboxfull": ("mail box", "mailbox"),
    "vm-review": ("rerecord", "re-record"),
    "vm-savefolder": ("save the message", "save this message"),
    "vm-torerecord": ("rerecord", "re-record"),
}
"""By prompt: what its published transcript says, and what is said, or how other prompts spell it."""

LEFT_OUT = {
    "confbridge-binaural-off": "3D is a name that is not written as it is spoken",
    "confbridge-binaural-on": "as above",
    "demo-moreinfo": "a web address is not written as it is spoken",
    "digits/a-m": "letters that are written in more than one way",
    "digits/p-m": "as above",
    "spy-h323": "as above",
    "spy-misdn": "as above",
    "spy-nbs": "as above",
    "to-rerecord-it": "it is hard to tell whether she says this",
}
"""Prompts whose transcript would not be a fair reference, and why."""

SHORTEST, LONGEST = 0.8, 15.0
"""Seconds of a prompt that goes into the archive."""

_VOICE = "en_US_f_Allison"
_SAMPLE_RATE, _BYTES_PER_SECOND = 16_000, 8_000  # of G.722; Hz
_SPOKEN_SIGNS = {**dict(zip("0123456789", VOCABULARY, strict=True)), "#": "pound", "*": "star"}


def extract(sounds_dir: Path, out_dir: Path) -> int:
    """Write `out_dir/WORD.flac` for every word; how many. Raises `DataError` if a recording is missing."""
    voice = _voice(sounds_dir)
    missing = [source for source in SOURCES.values() if not (voice / source).is_file()]
    if missing:
        raise DataError(
            f"{sounds_dir}: no {missing[0]} ({len(missing)} recordings missing);"
            " name the folder into which asterisk-core-sounds-en-g722 was unpacked"
        )
    out_dir.mkdir(parents=True, exist_ok=True)
    for word, source in SOURCES.items():
        with (voice / source).open("rb") as file:
            sf.write(out_dir / f"{word}.flac", decode_g722(file), _SAMPLE_RATE, subtype="PCM_16")
    return len(SOURCES)


def extract_prompts(sounds_dir: Path, archive: Path) -> int:
    """Write the prompts of two words or more as `archive`, the same bits each time; how many.

    Raises `DataError` if the transcripts or all recordings are missing, or a transcript has signs that do not say
    how they are spoken.
    """
    voice = _voice(sounds_dir)
    prompts = {}
    for name, published in _transcripts(sounds_dir).items():
        text = spoken(name, published)
        source = voice / f"{name}.g722"
        if text is None or len(words(text, "en")) < 2 or not source.is_file():
            continue
        content = source.read_bytes()
        if not SHORTEST <= len(content) / _BYTES_PER_SECOND <= LONGEST:
            continue
        if unspoken := re.sub(r"[A-Za-z .,:;?!'-]", "", text):
            raise DataError(f"{name}: {unspoken!r} in {text!r}: add it to CORRECTIONS as it is spoken, or to LEFT_OUT")
        prompts[name] = (text, content)
    if not prompts:
        raise DataError(f"{sounds_dir}: no recordings; unpack asterisk-core-sounds-en-g722 there as well")
    files = {f"{name}.g722": content for name, (_, content) in prompts.items()}
    files[TRANSCRIPTS] = "".join(f"{name}: {text}\n" for name, (text, _) in sorted(prompts.items())).encode()
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as target:
        for path, content in sorted(files.items()):
            entry = zipfile.ZipInfo(path)  # from 1980, whenever it is made
            entry.create_system, entry.external_attr = 3, 0o644 << 16  # Unix, wherever it is made
            target.writestr(entry, content)
    return len(prompts)


def spoken(name: str, published: str) -> str | None:
    """What is said in a prompt, in words; None if that is not speech or cannot be written in one way only."""
    text = published.replace(*CORRECTIONS.get(name, ("", "")))
    if name in LEFT_OUT or re.search(r"[\[(<]", text):  # silence, tones and remarks are in brackets
        return None
    for sign, word in _SPOKEN_SIGNS.items():
        text = re.sub(rf"(?<!\w){re.escape(sign)}(?!\w)", word, text)
    return " ".join(text.replace("...", " ").split())


def _transcripts(sounds_dir: Path) -> dict[str, str]:
    """The published transcripts, by prompt: lines `ID: TEXT`."""
    found = [*sounds_dir.rglob("core-sounds-en.txt.gz")]
    if not found:
        raise DataError(f"{sounds_dir}: no core-sounds-en.txt.gz; unpack asterisk-core-sounds-en there as well")
    lines = gzip.decompress(found[0].read_bytes()).decode().splitlines()
    pairs = [line.partition(":") for line in lines if line.strip() and not line.startswith(";")]
    return {name: text.strip() for name, _, text in pairs}


def _voice(sounds_dir: Path) -> Path:
    folders = [path for path in sounds_dir.rglob(_VOICE) if path.is_dir()]
    return folders[0] if folders else sounds_dir


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m rlhf_platform.data.extract_asterisk SOUNDS_DIR OUT_DIR")
    sounds, out = Path(sys.argv[1]), Path(sys.argv[2])
    try:
        print(f"{extract(sounds, out / 'digits')} words in {out / 'digits'}")
        archive = out / "prompts" / ARCHIVE.name
        print(f"{extract_prompts(sounds, archive)} prompts in {archive}")
        print(f"sha256 {hashlib.sha256(archive.read_bytes()).hexdigest()}, to be ARCHIVE_SHA256 of prompts.py")
    except DataError as error:
        sys.exit(str(error))
