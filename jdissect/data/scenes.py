"""Old name of `jdissect.scenes`; keeps `python -m jdissect.data.scenes` working."""

import sys

from jdissect.scenes import *  # noqa: F403
from jdissect.scenes.__main__ import main

if __name__ == "__main__":
    sys.exit(main(sys.argv))
