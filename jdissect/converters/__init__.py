"""The converters of the repository's folder `converters`; a wheel has them here."""

from pathlib import Path

__path__ = [str(Path(__file__).resolve().parents[2] / "converters")]
