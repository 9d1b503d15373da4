"""``python -m benchmarks.conformance [--json]``."""

import sys

from benchmarks.conformance.report import run

if __name__ == "__main__":
    run(sys.argv[1:])
