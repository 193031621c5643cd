"""From what the store holds of a run to what a report shows."""

from __future__ import annotations

from pathlib import Path

from harness.model.machine import HERE
from harness.model.records import Attempt
from harness.report.data import ReportInput, RunInfo
from harness.report.write import write_report
from harness.store.evidence import EvidenceStore
from harness.store.run import RunState, StoredRun


def report_input(run: StoredRun) -> ReportInput:
    """Shape a stored run for :func:`harness.report.write_report`."""
    info = run.info
    return ReportInput(
        run=RunInfo(
            id=info.id,
            started=info.started,
            finished=info.finished or "",
            state=info.state.value if isinstance(info.state, RunState) else str(info.state),
            matrix_sha256=info.matrix_sha256,
            matrix_text=info.matrix_text,
            tool_version=info.tool_version,
            host={**{key: str(value) for key, value in info.host.items()}, **_shared_facts(run.attempts)},
            options={key: str(value) for key, value in info.options.items() if value not in (None, "", False)},
        ),
        cells=run.cells,
        left_out=run.left_out,
        attempts=run.attempts,
    )


def publish(run: StoredRun, evidence: EvidenceStore, into: Path) -> Path:
    """Write the HTML report of a stored run and return the path of its first page."""
    return write_report(report_input(run), into, read_evidence=evidence.read, repro_command=_repro)


def _repro(attempt: Attempt) -> str:
    place, _, stack, device = [*attempt.cell_id.split("/", 3), "", "", ""][:4]
    if place == HERE:  # it is repeated where it ran; there is no VM to be made of it
        which = f" -k {device}" if device != "none" else ""
        return f"kdmatrix run --here --backend {stack}{which}"
    return f"kdmatrix repro {attempt.cell_id} --run {attempt.run_id} --attempt {attempt.number}"


def _shared_facts(attempts: tuple[Attempt, ...]) -> dict[str, str]:
    """Facts about the host that every attempt agrees on; a run that went on elsewhere names each value."""
    shared: dict[str, list[str]] = {}
    for attempt in attempts:
        for name, value in attempt.facts.items():
            if name == "accelerator" or name.startswith("host."):
                values = shared.setdefault(name, [])
                if value not in values:
                    values.append(value)
    return {name: " / ".join(values) for name, values in sorted(shared.items())}
