"""The commands of a cell, in the order of its ladder, as lines of the script."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from harness.images.recipe import StackRecipe, Step
from harness.ladder.loading import kernel_name
from harness.model.cell import Cell
from harness.model.stage import Stage
from harness.suites.manifest import TestSpec
from harness.suites.programs import environment
from harness.suites.run import command, to_run

_STAGES = (Stage.ENUMERATE, Stage.COMPUTE, Stage.THROUGHPUT)


def command_lines(cell: Cell, stack: StackRecipe, tests: Sequence[TestSpec], scale: float) -> list[str]:
    """Return calls of the script's shell functions, one a line; time limits are ``scale`` times the cell's."""
    return [
        *_load_steps(cell, stack, scale),
        *_compute_steps(cell, stack, tests, scale),
        f"unload_modules {cell.timeouts.test * scale:.0f}",
    ]


def _load_steps(cell: Cell, stack: StackRecipe, scale: float) -> list[str]:
    limit = f"{cell.timeouts.test * scale:.0f}"
    loads = [
        f"load_module {'required' if module.required else 'optional'} {limit} "
        f"{_remote([module.name])} {_remote([module.name, *module.parameters])} {kernel_name(module)}"
        + (f" {shlex.quote(module.refusal)}" if module.refusal and cell.device == "none" else "")
        for module in stack.modules
    ]
    steps = [*stack.activate, *(step for step in stack.verify if step.stage is Stage.LOAD)]
    return [*loads, *_steps(steps, scale)]


def _compute_steps(cell: Cell, stack: StackRecipe, tests: Sequence[TestSpec], scale: float) -> list[str]:
    lines = []
    for stage in _STAGES:
        lines += _steps((step for step in stack.verify if step.stage is stage), scale)
        for backend, test in to_run(tests, stack.backends, stage):
            limit = cell.timeouts.for_test(test.timeout) * scale
            if test.program is not None:
                argv = ["env", *environment(test, backend=backend, timeout=limit), *test.program.run]
                lines.append(f"own_test {limit:.0f} {shlex.quote(str(test.program.folder))} {_remote(argv)}")
            else:
                argv = command(test, backend=backend, timeout=limit)
                lines.append(f"compute {limit:.0f} {_remote(argv)}")
    return lines


def _steps(steps: Iterable[Step], scale: float) -> list[str]:
    return [f"step {step.timeout * scale:.0f} {shlex.quote(step.match or '')} {_remote(step.run)}" for step in steps]


def _remote(argv: Sequence[str]) -> str:
    """One word for the script that is a line for the guest's shell: SSH carries a line, not an argument vector."""
    return shlex.quote(shlex.join(argv))
