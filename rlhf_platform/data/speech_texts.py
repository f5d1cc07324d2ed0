"""What the demo set `speech` says: commands of four words, such as "open the red box"."""

from itertools import product

VERBS = ("open", "close", "find", "bring")
COLOURS = ("red", "green", "white", "golden")
OBJECTS = ("box", "door", "window", "jacket")
"""Few, so that a model of a million parameters learns to speak them in minutes; without homophones, and such that a
small recogniser hears them well."""

VOCABULARY = (*VERBS, "the", *COLOURS, *OBJECTS)
"""13 words."""

TEXTS = tuple(f"{verb} the {colour} {thing}" for verb, colour, thing in product(VERBS, COLOURS, OBJECTS))
"""All 64 commands."""
