"""The configs in the folder `configs` of the repository; a wheel has them here."""

from pathlib import Path

__path__ = [str(Path(__file__).resolve().parents[2] / "configs")]
