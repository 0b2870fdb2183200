"""What the tests of pages share."""

import pytest

from tests.report import browser as browsers


@pytest.fixture(scope="module")
def browser():
    """A headless browser; the test is skipped where there is none."""
    with browsers.launched() as found:
        yield found


@pytest.fixture
def watched(browser):
    """Opens pages; fails at the end if one erred, asked or fetched anything."""
    found = browsers.Watched(browser)
    yield found
    found.close()
