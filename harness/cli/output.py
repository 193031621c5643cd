"""How the command line speaks: one line per error, exit codes that mean the same everywhere, text safe to print."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from typing import Any, NoReturn, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.text import Text

from harness.errors import InfraError, KdmatrixError, UserError
from harness.matrix import MatrixError

P = ParamSpec("P")
R = TypeVar("R")

OK = 0
FINDINGS = 1
BAD_INPUT = 2
NOTHING_RAN = 3
GAPS = 4

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def reported(command: Callable[P, R]) -> Callable[P, R]:
    """Turn our errors into one message and an exit code; a traceback remains what it is: a defect of ours."""

    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except MatrixError as error:
            print(error, file=sys.stderr)
            raise typer.Exit(BAD_INPUT) from None
        except UserError as error:
            fail(str(error), BAD_INPUT)
        except (InfraError, KdmatrixError) as error:
            fail(str(error), GAPS)
        except BrokenPipeError:
            sys.stderr.close()
            raise typer.Exit(OK) from None

    return wrapper


def fail(message: str, code: int) -> NoReturn:
    """Print one line on standard error and leave."""
    err.print(Text(f"kdmatrix: {message}", style="red"))
    raise typer.Exit(code)


def warn(message: str) -> None:
    """Print one line on standard error."""
    err.print(Text(f"warning: {message}", style="yellow"))


def say(message: str = "", style: str = "") -> None:
    """Print one line on standard output; brackets in it are text."""
    out.print(Text(message, style=style))


def show_json(data: Any) -> None:
    """Print JSON for other programs."""
    print(json.dumps(data, indent=2, ensure_ascii=False, default=str))
