"""Puts the folders `configs` and `converters` into the package of a wheel."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

FOLDERS = ("configs", "converters")


class BuildWithFolders(build_py):
    """In a checkout `jdissect.configs` and `jdissect.converters` point to them."""

    def run(self):
        super().run()
        if self.editable_mode:
            return
        for name in FOLDERS:
            target = Path(self.build_lib) / "jdissect" / name
            shutil.rmtree(target, ignore_errors=True)
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(name, target, ignore=ignore)


setup(cmdclass={"build_py": BuildWithFolders})
