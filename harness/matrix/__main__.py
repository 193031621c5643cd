"""``python -m harness.matrix`` prints the JSON Schema of the matrix file, as committed in ``docs/``."""

import sys

from harness.matrix.schema import schema_text

if __name__ == "__main__":
    sys.stdout.write(schema_text())
