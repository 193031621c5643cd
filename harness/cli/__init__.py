"""The command line: thin; parses, calls, prints."""

from harness.cli.main import main

__all__ = ["main"]
