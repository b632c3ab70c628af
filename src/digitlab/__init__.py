"""digitlab: which differences between image classifiers are real?"""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
