"""The rung ``build``: what building a stack's modules came to, as results, facts and evidence of a cell."""

from __future__ import annotations

from harness.drivers.build import Built
from harness.drivers.result import ModuleBuild
from harness.ladder.rungs import Rung
from harness.model.outcome import Outcome
from harness.model.records import TestResult
from harness.model.stage import Stage


def build_rung(built: Built) -> Rung:
    """Turn a build into a rung; whether it was made now or taken from the cache is a fact of its own."""
    result = built.result
    rung = Rung(result.outcome, result.reason, [_as_test(result)], {"build.log": built.log}, _facts(result))
    rung.facts["build.made"] = "now" if built.fresh else "from the cache"
    return rung


def _as_test(result: ModuleBuild) -> TestResult:
    named = ", ".join(" ".join(source) for source in result.sources)
    details: dict[str, str | int | float | bool] = {
        "compiler": result.compiler,
        "cpu_seconds": round(result.cpu_seconds, 1),
        "ccache_hits": result.ccache_hits,
        "ccache_misses": result.ccache_misses,
    }
    for module in result.modules:
        details[f"{module.name}.srcversion"] = module.srcversion or "none"
        details[f"{module.name}.vermagic"] = module.vermagic
        details[f"{module.name}.signer"] = module.signer or "unsigned"
    if result.error:
        details |= {
            "error.kind": result.error.kind,
            "error.file": result.error.file,
            "error.line": result.error.line,
            "error.symbol": result.error.symbol,
            "error.message": result.error.message[:500],
        }
    return TestResult(
        f"build {named or 'modules'}", Stage.BUILD, result.outcome, result.reason, result.seconds, details=details
    )


def _facts(result: ModuleBuild) -> dict[str, str]:
    facts = {"build.compiler": result.compiler}
    if result.driver_version:
        facts["driver.version"] = result.driver_version
    for name, sha256 in result.packages:
        facts[f"driver.part.{name}"] = sha256
    if result.packages:
        facts["driver.package"] = result.packages[0][0].removesuffix(".deb").partition("_")[2].rpartition("_")[0]
    if result.outcome is Outcome.FAIL and result.error and result.error.symbol:
        facts["build.symbol"] = result.error.symbol
    return facts
