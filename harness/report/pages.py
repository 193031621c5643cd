"""Fills the templates of ``reports/``: everything escaped, every undefined name an error, streamed to disk."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness.content import content_dir
from harness.report.text import own, page_text


def _finalize(value: Any) -> Any:
    """Every expression of every template passes here, so no template can forget to make hostile text visible."""
    if isinstance(value, Markup):
        return value
    return page_text(value) if isinstance(value, str) else value


class Pages:
    """The templates, with the shipped CSS and scripts that are inlined into them."""

    def __init__(self, content: Path | None = None) -> None:
        self._content = content or content_dir("reports")
        self._environment = Environment(
            loader=FileSystemLoader(self._content),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=_finalize,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )

    def write(self, template: str, path: Path, scripts: tuple[str, ...], values: Mapping[str, Any]) -> None:
        """Fill ``template`` into ``path``, a piece at a time, with its scripts inlined and pinned by a CSP."""
        style = own(self._read("report.css"))
        script = own("\n".join(self._read(name) for name in scripts))
        filled = self._environment.get_template(template).stream(
            **values, style=style, script=script, csp=policy(script, style)
        )
        filled.enable_buffering(64)
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(filled)

    def _read(self, name: str) -> str:
        return (self._content / name).read_text(encoding="utf-8")


def policy(script: str, style: str) -> str:
    """Return the Content-Security-Policy of a page: nothing but this script, this style, and our own chunk files.

    ``'self'`` is for ``details/*.js`` and ``evidence/*.js``; on ``file://`` a browser takes it for local files only.
    """
    scripts = f"'{_hash(script)}' 'self'" if script else "'none'"
    return (
        f"default-src 'none'; script-src {scripts}; style-src '{_hash(style)}'; img-src data:; "
        "connect-src 'none'; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
