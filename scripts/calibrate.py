#!/usr/bin/env python
"""Fit the confidence of the index anew, to its passages and the labelled questions of today."""

import sys

from assistant.cli import main

if __name__ == "__main__":
    sys.exit(main(["calibrate", *sys.argv[1:]]))
