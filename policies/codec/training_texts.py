"""English sentences to train a codec on: commands and statements drawn from word lists that cover the sounds."""

import random


def _words(text: str) -> list[str]:
    return text.split()


def _phrases(text: str) -> list[str]:
    return text.split("|")


_COLOURS = _words("red blue green yellow black white orange purple grey brown pink golden")
_SIZES = _words("big small large tiny huge little old new broken heavy round square wooden empty shiny strange")
_THINGS = _words(
    "box door window lamp cup table chair book bottle basket kitchen garage engine ladder camera telephone radio "
    "garden bridge jacket pencil mirror blanket bicycle candle drawer envelope flower guitar hammer island jug kettle "
    "lemon magazine needle oven parcel quilt rope shoe towel umbrella vase wheel yard zipper church judge measure thing"
)
_VERBS = _words(
    "open close move lift push pull take bring find paint wash fix drop hold check choose carry watch join throw shake "
    "measure clean fetch touch count show hide leave turn"
)
_WHO = _phrases(
    "my brother|the doctor|our teacher|that young woman|an old sailor|the boy|her mother|his uncle George|the judge|"
    "a few of them|nobody|everyone|the captain|Alice|Jonathan|your neighbour|the whole team|she|he|they"
)
_PAST = _words(
    "opened closed moved lifted pushed took brought found painted washed fixed dropped held checked chose carried "
    "watched joined threw shook measured cleaned touched counted showed left heard bought sold forgot drew"
)
_WHERE = _phrases(
    "on the left|on the right|behind the house|under the table|near the river|in the corner|at the station|by the sea|"
    "above the shelf|next to the fire|across the street|inside the church|between the trees|over there|upstairs"
)
_WHEN = _phrases(
    "yesterday|this morning|at half past seven|on Thursday|in January|before lunch|just now|after the show|last year|"
    "every evening|in five minutes|twice a week|at once|tomorrow|for a while"
)
_EXTRA = _phrases(
    "please be quiet|what time is it now|thank you very much|I do not think so|where are you going|how are you today|"
    "that is a good idea|would you like some tea|we are almost there|they could hear the ocean|go straight ahead|"
    "the weather is rather cold|it was a pleasure to see you|this bath is too hot|which one do you want|oh no|"
    "the quick brown fox jumps over the lazy dog|she sells shells on the shore|enjoy your journey|loud voices annoy us"
)
_NUMBERS = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen twenty thirty forty "
    "fifty sixty seventy eighty ninety hundred thousand"
)


def sentence(rng: random.Random) -> str:
    """One sentence, of one word to about twenty."""
    return rng.choices((_command, _statement, _question, _extra, _count, _word), (6, 5, 3, 2, 2, 1))[0](rng)


def _thing(rng: random.Random) -> str:
    words = [rng.choice(part) for part in (_SIZES, _COLOURS) if rng.random() < 0.6]
    return f"{rng.choice(('the', 'the', 'the', 'this', 'that', 'your'))} {' '.join([*words, rng.choice(_THINGS)])}"


def _command(rng: random.Random) -> str:
    first = f"{rng.choice(_VERBS)} {_thing(rng)}"
    if rng.random() < 0.3:
        first += f" {rng.choice(_WHERE)}"
    if rng.random() < 0.25:
        first += f"{rng.choice((',', ''))} and {rng.choice(_VERBS)} {_thing(rng)}"
    return first + "."


def _statement(rng: random.Random) -> str:
    said = f"{rng.choice(_WHO)} {rng.choice(_PAST)} {_thing(rng)}"
    for more in (_WHERE, _WHEN):
        if rng.random() < 0.5:
            said += f" {rng.choice(more)}"
    return said + rng.choice(".......!")


def _question(rng: random.Random) -> str:
    start = rng.choice(("did", "will", "could", "when did", "why should", "how can"))
    return f"{start} {rng.choice(_WHO)} {rng.choice(_VERBS)} {_thing(rng)} {rng.choice(_WHEN)}?"


def _extra(rng: random.Random) -> str:
    return rng.choice(_EXTRA) + rng.choice(".,!?")


def _count(rng: random.Random) -> str:
    return " ".join(rng.choices(_NUMBERS, k=rng.randint(1, 6))) + "."


def _word(rng: random.Random) -> str:
    return rng.choice(rng.choice((_COLOURS, _SIZES, _THINGS, _VERBS, _NUMBERS))) + "."
