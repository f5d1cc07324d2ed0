"""`make setup`: make .venv, install the locked packages, prove that they work.

Only the question whether this Python is new enough is here, in words that any Python 3 can read: an
old one must answer with a sentence and not with a syntax error. The work is in infra/install.py.
"""

import shutil
import sys

OLDEST = (3, 11)


def python_problem(version):  # type: ignore[no-untyped-def]  # an old Python cannot read the annotation
    """Say in one line why this Python (major, minor, ...) cannot be used, or return None."""
    if tuple(version[:2]) >= OLDEST:
        return None
    newer = [name for name in ("python3.11", "python3.12", "python3.13") if shutil.which(name)]
    way_out = "" if newer else "install Python 3.11, then "
    way_out += "make setup PYTHON=" + (newer or ["python3.11"])[0]
    here, oldest = (".".join(map(str, v[:2])) for v in (version, OLDEST))
    return "Python " + here + " is too old, " + oldest + " or newer is needed. Way out: " + way_out


def main():  # type: ignore[no-untyped-def]
    problem = python_problem(sys.version_info)
    if problem:
        sys.stderr.write("set-up stopped: " + problem + "\n")
        return 1
    from infra.install import main as install

    return install()


if __name__ == "__main__":
    sys.exit(main())
