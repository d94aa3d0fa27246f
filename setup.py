"""What pyproject.toml cannot say: all packages that are found, and the weights beside them under another name."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["emitdiff", "emitdiff.*"]), "emitdiff_checkpoints"])
