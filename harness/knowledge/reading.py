"""Reads YAML lists of facts strictly: every mistake is one line that says where it is and what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from harness.errors import UserError


class Strict(BaseModel):
    """Settings with no others beside them, and never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


FileT = TypeVar("FileT", bound=Strict)


def read_file(path: Path, model: type[FileT]) -> FileT:
    """Read a file of facts.

    Raises:
        UserError: it cannot be read, is not YAML, or does not say what ``model`` wants.
    """
    try:
        text = path.read_text(encoding="utf-8")
        # BaseLoader makes nothing but text, so that a version such as 7.10 stays what is written.
        node = yaml.compose(text, Loader=yaml.CBaseLoader)
        data: Any = yaml.load(text, Loader=yaml.CBaseLoader)  # noqa: S506  makes nothing but text
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise UserError(f"{path}{where}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(data, Mapping):
        raise UserError(f"{path}:1:1: want a mapping with {', '.join(model.model_fields)}")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        line, column = _place(node, first["loc"])
        raise UserError(f"{path}:{line}:{column}: {_explain(first)}") from None


def _place(node: Any, where: Sequence[int | str]) -> tuple[int, int]:
    """Line and column, from 1, of what ``where`` leads to; of a missing key, those of the mapping that lacks it."""
    mark = node.start_mark if node is not None else None
    for part in where:
        if isinstance(node, yaml.MappingNode):
            pair = next(((key, value) for key, value in node.value if key.value == part), None)
            if pair is None:
                break
            mark, node = pair[0].start_mark, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            mark = node.start_mark
        else:
            break
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def _explain(error: Mapping[str, Any]) -> str:
    where = error["loc"]
    key = ".".join(str(part) for part in where)
    if error["type"] == "missing":
        return f"{key} is missing"
    if error["type"] == "extra_forbidden":
        known = {name for model in _all_of(Strict) for name in model.model_fields}
        nearest = difflib.get_close_matches(str(where[-1]), sorted(known), n=1)
        return f"{key}: there is no such setting" + (f"; did you mean {nearest[0]}?" if nearest else "")
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{key}: {message}" if key else message


def _all_of(model: type[Strict]) -> list[type[Strict]]:
    below = model.__subclasses__()
    return [one for child in below for one in (child, *_all_of(child))]
