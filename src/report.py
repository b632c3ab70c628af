"""Say which differences between a sweep's runs are real: python src/report.py report.sweep=grid"""

from digitlab.platform.environment import shielded

if __name__ == "__main__":
    with shielded():
        from digitlab.apps import start

        start("report")
