"""Run `perfkit demo` and keep its table: the same calls as people write them today, and through perfkit.

python benchmarks/demo.py [--quick] [--json]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from perfkit import cli


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="200 calls each way")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    few = ["--calls", "200"] if options.quick else []
    return cli.main(["demo", *few, *(["--json"] if options.json else [])])


if __name__ == "__main__":
    sys.exit(main())
