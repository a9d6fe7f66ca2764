#!/usr/bin/env python
"""Build the index from the corpus folder; safe to run while the page is serving."""

import sys

from assistant.cli import main

if __name__ == "__main__":
    sys.exit(main(["build", *sys.argv[1:]]))
