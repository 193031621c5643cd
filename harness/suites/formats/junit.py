"""JUnit XML, as JUnit, pytest, GoogleTest and most runners write it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree

from harness.model.outcome import Outcome
from harness.suites.formats.case import Case, Unreadable, bounded, line

_MAX_ELEMENTS = 200_000


def read(report: bytes) -> list[Case]:
    """Read every ``testcase`` at any depth; its name is ``classname.name`` where it has a class."""
    # The report comes from a guest. Entities are what makes XML dangerous, and JUnit needs none.
    if re.search(rb"<!(DOCTYPE|ENTITY)", report, re.IGNORECASE):
        raise Unreadable("it declares a document type, which JUnit XML has no use for")
    try:
        root = ElementTree.fromstring(report)  # noqa: S314  # without a document type there are no entities
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise Unreadable(f"it is not readable as XML: {line(str(error))}") from None
    if _tag(root) not in ("testsuites", "testsuite"):
        raise Unreadable(f"its root element is {_tag(root)[:40]!r}, not testsuites or testsuite")
    cases = list(_cases(root))
    cases += _broken_suites(root)
    return bounded(cases)


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _cases(root: ElementTree.Element) -> Iterator[Case]:
    for place, element in enumerate(root.iter()):
        if place > _MAX_ELEMENTS:
            raise Unreadable(f"it has more than {_MAX_ELEMENTS} elements")
        if _tag(element) == "testcase":
            yield _case(element)


def _case(element: ElementTree.Element) -> Case:
    owner, own = element.get("classname", ""), element.get("name", "")
    name = line(f"{owner}.{own}" if owner else own) or "unnamed"
    found = {_tag(child): child for child in reversed(element)}
    for tag, outcome, otherwise in (
        ("error", Outcome.ERROR, "error"),
        ("failure", Outcome.FAIL, "failure"),
        ("skipped", Outcome.SKIP, "skipped"),
    ):
        if tag in found:
            return Case(name, outcome, _reason(found[tag]) or otherwise)
    # GoogleTest's word for a test that is disabled, or that a filter left out.
    if element.get("status") == "notrun":
        return Case(name, Outcome.SKIP, "not run")
    return Case(name, Outcome.PASS)


def _reason(element: ElementTree.Element) -> str:
    return line(element.get("message", "") or element.text or "")


def _broken_suites(root: ElementTree.Element) -> list[Case]:
    """Suites that count more errors than their cases show: something broke outside a case."""
    broken = []
    for suite in (element for element in root.iter() if _tag(element) == "testsuite"):
        declared = suite.get("errors", "0")
        shown = sum(1 for element in suite.iter() if _tag(element) == "error")
        if declared.isdigit() and int(declared) > shown:
            reason = f"the suite counts {declared[:9]} errors, its cases show {shown}"
            broken.append(Case(line(suite.get("name", "")) or "suite", Outcome.ERROR, reason))
    return broken
