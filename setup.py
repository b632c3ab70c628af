"""Say which folders are packages: those of src/, and conf/ as digitlab.conf; pyproject.toml cannot say both."""

from setuptools import find_namespace_packages, setup

setup(
    packages=[*find_namespace_packages("src"), "digitlab.conf"],
    package_dir={"": "src", "digitlab.conf": "conf"},
)
