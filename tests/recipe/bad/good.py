"""A reward that is right, for recipes that are wrong elsewhere."""


def judged(sample, judge=""):
    return 1.0
