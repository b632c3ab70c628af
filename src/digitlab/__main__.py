"""The start of the command `digitlab`, and of `python -m digitlab`."""

from digitlab.platform.environment import shielded
from digitlab.platform.signals import exit_at_once_on_signals


def main() -> None:
    """Run the command line; signals are heard before anything large loads."""
    exit_at_once_on_signals()
    with shielded():
        from digitlab.cli import run

        run()


if __name__ == "__main__":
    main()
