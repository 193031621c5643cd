"""Static, offline HTML reports of a run: a matrix, its cells and the evidence behind them."""

from harness.report.data import ReportInput, RunInfo
from harness.report.write import write_report

__all__ = ["ReportInput", "RunInfo", "write_report"]
