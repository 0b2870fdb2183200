"""The repository's folder `converters`; a wheel installs it here."""

from pathlib import Path

__path__ = [str(Path(__file__).resolve().parents[2] / "converters")]
