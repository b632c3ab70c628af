"""Say which differences between a sweep's runs are real: python src/report.py report.sweep=grid"""

from digitlab.apps import start

if __name__ == "__main__":
    start("report")
