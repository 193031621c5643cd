"""The matrix file: read with positions, checked as a whole, explained line by line.

It stands beside the pure model because reading is I/O; what it returns is :class:`harness.model.matrix.Matrix`.
"""

from harness.matrix.frame import MatrixError, Problem
from harness.matrix.load import load_matrix
from harness.matrix.references import Known
from harness.matrix.schema import json_schema

__all__ = ["Known", "MatrixError", "Problem", "json_schema", "load_matrix"]
