"""Checks annotations at every call; see CHECKED in conftest.py."""

import beartype

# A whole number is a float, too, as for every other checker.
check = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
