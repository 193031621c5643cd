"""Explains the failed rung of a ladder by what is known, and takes back a failure that was only the lab's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.errors import KdmatrixError
from harness.knowledge.conditions import Subject
from harness.knowledge.issues import TEXT_LIMIT, KnownIssues
from harness.knowledge.preflight import predict
from harness.knowledge.rules import Rules
from harness.model.outcome import Outcome
from harness.model.prediction import Grade, IssueMatch, Prediction
from harness.model.records import StageResult
from harness.model.stage import Stage

MOST = 8
"""Matches kept with an attempt; what explains a failure is among the first."""
_LOGS = ("build.log", "dmesg", "console")


@dataclass(frozen=True, slots=True)
class Knowledge:
    """Everything known of kernels and drivers without trying."""

    issues: KnownIssues = field(default_factory=KnownIssues)
    rules: Rules = field(default_factory=Rules)

    @classmethod
    def load(cls, guests: Path) -> Knowledge:
        """Read ``known_issues/`` and ``_knowledge/`` of the content room of guests.

        Raises:
            UserError: a file is wrong.
        """
        return cls(KnownIssues.load(guests / "known_issues"), Rules.load(guests / "_knowledge"))

    def predict(self, subject: Subject) -> tuple[Prediction, ...]:
        """See :func:`harness.knowledge.preflight.predict`."""
        return predict(subject, self.issues, self.rules)

    def debugging(self, config: Mapping[str, str] | None) -> str:
        """Why the speed of a kernel must not be measured; empty where nothing speaks against it."""
        return self.rules.debugging(config)

    def explain(
        self, stages: Sequence[StageResult], subject: Subject, read: Callable[[str], bytes]
    ) -> tuple[list[StageResult], tuple[IssueMatch, ...]]:
        """Return the rungs, and what is known about the one that failed.

        ``read`` gives the bytes of a piece of evidence. A FAIL in whose logs an infrastructure fault is identified
        becomes MISS: it says nothing about the product. Nothing else is ever changed.
        """
        for index, result in enumerate(stages):
            lost_build = result.outcome is Outcome.MISS and result.stage is Stage.BUILD
            if result.outcome is not Outcome.FAIL and not lost_build:
                continue
            matches = self.issues.match(
                stack=subject.stack,
                driver=subject.driver,
                kernel=subject.kernel,
                config=subject.config,
                modules=subject.modules,
                device=subject.device,
                stage=result.stage,
                text=_text(result, stages, read),
            )
            lab = next((one for one in matches if one.grade is Grade.IDENTIFIED and self._infrastructure(one)), None)
            if lab is not None:
                matches = (lab,)
            elif lost_build:
                matches = ()  # nothing is known about the driver, so nothing about it can be recognised
            changed = list(stages)
            if lab is not None and result.outcome is Outcome.FAIL:
                reason = f"{lab.title} ({lab.issue}): {lab.excerpt}"[:300]
                changed[index] = replace(result, outcome=Outcome.MISS, reason=reason)
            return changed, matches[:MOST]
        return list(stages), ()

    def _infrastructure(self, match: IssueMatch) -> bool:
        issue = self.issues.get(match.issue)
        return issue is not None and issue.infrastructure


def _text(failed: StageResult, stages: Sequence[StageResult], read: Callable[[str], bytes]) -> str:
    """The reason and the logs of the failed rung; the console, which the rung ``boot`` keeps, is of them all."""
    parts = [failed.reason]
    for result in stages:
        for item in result.evidence:
            own = result.stage is failed.stage and item.name.startswith(_LOGS)
            console = item.name.startswith("console") and failed.stage is not Stage.BUILD
            if own or console:
                try:
                    parts.append(read(item.sha256)[:TEXT_LIMIT].decode("utf-8", "replace"))
                except (OSError, LookupError, KdmatrixError):
                    continue
    return "\n".join(parts)
