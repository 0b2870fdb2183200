"""Renders single-file pages from templates, with embedded data.

Names of concepts, layers and images come from vocabularies and file systems and may be
anything. Templates escape what they show. Data is in JSON blocks, which a browser does
not run, with '<', '>' and '&' escaped so that no block ends early; scripts set text,
never HTML. A content security policy in the page's head enforces this: it runs only the
scripts written here, known by their SHA-256, and loads nothing from anywhere.
"""

import base64
import functools
import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

LIMIT = 15_000_000  # bytes per page
_ESCAPES = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def json_text(value: Any) -> Markup:
    """Returns JSON that is safe inside a <script type="application/json">.

    Raises:
      ValueError: a number is not finite, which JSON cannot represent.
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Markup(text.translate(_ESCAPES))


def packed(array: np.ndarray, dtype: str) -> list[str]:
    """Returns [dtype, base64 of the little-endian numbers], for `typed` in shared.js.

    Args:
      array: array of any shape; it is flattened.
      dtype: 'u1', 'u2', 'u4', 'i4', 'f4' or 'f8'.
    """
    numbers = np.ascontiguousarray(array).astype(f"<{dtype}")
    return [dtype, base64.b64encode(numbers.tobytes()).decode()]


def packed_integers(array: np.ndarray) -> list[str]:
    """Packs integers in the smallest type that holds them."""
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    if low < 0:
        return packed(array, "i4")
    small = next((t for t, top in (("u1", 2**8), ("u2", 2**16)) if high < top), "u4")
    return packed(array, small)


def texts(values: Sequence[str]) -> dict[str, list[str]]:
    """Packs texts, so that no list of them is taken for packed numbers."""
    return {"texts": list(values)}


def chunks(encoded: Sequence[bytes], size: int) -> list[Markup]:
    """Returns blocks of base64 texts, `size` per block; the last may have fewer."""
    texts = [base64.b64encode(content).decode() for content in encoded]
    starts = range(0, len(texts), size)
    return [json_text(texts[start : start + size]) for start in starts]


def render(template: str, scripts: Sequence[str], **content: Any) -> bytes:
    """Renders a page.

    Args:
      template: name of a file in templates/.
      scripts: names of JavaScript files in templates/ that become its one script.
      content: values that the template shows.
    """
    parts = "\n".join(_text(name) for name in scripts)
    script = f'(() => {{\n"use strict";\n{parts}\n}})();'
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    html = (
        _environment()
        .get_template(template)
        .render(
            policy=policy,
            script=Markup(script),
            css=Markup(_text("page.css")),
            **content,
        )
    )
    # Names from a file system may contain what UTF-8 cannot represent.
    return html.encode("utf-8", "replace")


def _text(name: str) -> str:
    folder = resources.files("jdissect.report.pages") / "templates"
    return (folder / name).read_text(encoding="utf-8")


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(_text),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
