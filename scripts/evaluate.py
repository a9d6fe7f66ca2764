#!/usr/bin/env python
"""Measure the index on labelled questions: a table, JSON with --json, a page with --html."""

import sys

from assistant.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
