"""Everything one does with this repository: python3 tasks.py demo|test|check|docs|bench.

Standard library only. Makes .venv beside this file, installs floodem there at
the versions of constraints.txt, and runs the task with it. What follows ``--``
goes to the task's own program, for example: python3 tasks.py test -- -k boxes

The syntax is old on purpose, so that an old Python can read this far and say
that it is too old.
"""

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.abspath(__file__))
VENV = os.path.join(ROOT, ".venv")
STAMP = os.path.join(VENV, "floodem-installed.json")
OLDEST_PYTHON = (3, 11)
EXIT_REFUSED = 3
EXIT_INTERRUPTED = 130

EXTRAS = {
    "demo": ["labels", "view"],
    "test": ["test"],
    "check": ["dev"],
    "docs": ["docs"],
    "bench": ["test"],
}
CONTAINED = {"dev": ["test", "docs"], "test": ["labels", "view"]}

# A file of tests stays in one process; four of them need 8 GB at most.
SPREAD = ["-n", "auto", "--maxprocesses", "4", "--dist", "loadfile", "--no-loadscope-reorder"]

USAGE = """usage: python3 tasks.py TASK [--gpu] [-- ARGUMENTS]

  demo    make synthetic tissue, flood it, score it, show it
  test    run the test suite                    (-- goes to pytest; -- -n 0 in one process)
  check   ruff, mypy, import-linter
  docs    build the documentation               (-- goes to sphinx)
  bench   measure                               (-- goes to benchmarks/run.py)

  --gpu   first install the torch that fits this machine's NVIDIA card
"""


class Refusal(Exception):
    """Something the user has to mend first; the message says what and how."""


def say(text):
    """Print a line on any console."""
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    sys.stdout.flush()


def environment():
    """Return the environment of the commands: as here, but printing never fails."""
    settings = dict(os.environ)
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower()
    settings["PYTHONIOENCODING"] = encoding + ":backslashreplace"
    return settings


def run(command, **options):
    """Show a command, run it in the repository and return its exit code.

    Ctrl-C reaches the command too: it may save its work, and its exit code ends the task.
    """
    say("$ " + " ".join(command))
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), **options)
    interrupted = False
    while process.returncode is None:
        try:
            process.wait()
        except KeyboardInterrupt:
            interrupted = True
    code = process.returncode if process.returncode >= 0 else 128 - process.returncode
    if interrupted:
        raise SystemExit(code or EXIT_INTERRUPTED)
    return code


def in_venv(name):
    """Return the path of a program in the virtual environment."""
    if os.name == "nt":
        return os.path.join(VENV, "Scripts", name + ".exe")
    return os.path.join(VENV, "bin", name)


def require_python():
    """Refuse to go on with a Python that is too old."""
    if sys.version_info < OLDEST_PYTHON:
        raise Refusal(
            "floodem needs Python {0}.{1} or newer and this is {2}.{3} ({4}): run tasks.py with a "
            "newer one, for example python{0}.{1} tasks.py test".format(
                OLDEST_PYTHON[0],
                OLDEST_PYTHON[1],
                sys.version_info[0],
                sys.version_info[1],
                sys.executable,
            )
        )


def make_venv():
    """Make the virtual environment where there is none."""
    if os.path.exists(in_venv("python")):
        return
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing:
        raise Refusal(
            "{0} cannot make a virtual environment, its module {1} is missing: on Debian and "
            "Ubuntu install it with 'apt install python{2}.{3}-venv'".format(
                sys.executable, missing[0], sys.version_info[0], sys.version_info[1]
            )
        )
    code = run([sys.executable, "-m", "venv", VENV])
    if code:
        raise Refusal("no virtual environment could be made in {0}: see above".format(VENV))


def contained(extras):
    """Return these extras and those that they contain."""
    found = set(extras)
    for extra in extras:
        found |= contained(CONTAINED.get(extra, []))
    return found


def fingerprint():
    """Return what an installation depends on, as one word."""
    digest = hashlib.sha256(sys.version.encode())
    for name in ("pyproject.toml", "constraints.txt"):
        with open(os.path.join(ROOT, name), "rb") as source:
            digest.update(source.read())
    digest.update(ROOT.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def installed():
    """Return what the stamp says: the fingerprint, and the extras that were installed."""
    try:
        with open(STAMP, encoding="utf-8") as stamp:
            known = json.load(stamp)
    except (OSError, ValueError):
        return "", set()
    return known["fingerprint"], set(known["extras"])


def install(extras):
    """Install floodem with these extras, unless the same was done before."""
    wanted = contained(extras)
    known_fingerprint, known_extras = installed()
    if known_fingerprint == fingerprint():
        if wanted <= known_extras:
            return
        wanted |= known_extras
    pip = [in_venv("python"), "-m", "pip", "--disable-pip-version-check", "install"]
    named = ".[{0}]".format(",".join(sorted(wanted)))
    code = run([*pip, "-e", named, "-c", "constraints.txt"])
    if code:
        raise Refusal(
            "the installation failed: see above; it needs a package index, and for the first "
            "time a network"
        )
    with open(STAMP, "w", encoding="utf-8") as stamp:
        json.dump({"fingerprint": fingerprint(), "extras": sorted(wanted)}, stamp)


def look_for_card(install_now):
    """Tell of an NVIDIA card that torch cannot use; with --gpu install what can."""
    sys.path.insert(0, os.path.join(ROOT, "src"))
    from floodem import cards

    card = cards.find_card()
    if card is None:
        if install_now:
            raise Refusal("--gpu: this machine shows no NVIDIA card")
        return
    question = "import torch; print(torch.cuda.is_available(), torch.__version__)"
    answer = cards.run_quietly([in_venv("python"), "-c", question])
    words = (answer or "False unknown").split()
    if words[0] == "True":
        return
    advice = cards.advise(card)
    if not install_now:
        say(cards.unused_card_notice(card, advice, torch_version=words[1]))
        if advice.arguments:
            say("or let tasks.py do that: python3 tasks.py TASK --gpu")
        return
    if not advice.arguments:
        raise Refusal(advice.sentence)
    code = run([in_venv("python"), "-m", "pip", *advice.arguments])
    if code:
        raise Refusal("torch for the card could not be installed: see above")


def install_browser():
    """Install the browser of the viewer's tests where that is ours to do: root on Debian."""
    if shutil.which("chromium") and shutil.which("chromedriver"):
        return
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    if not is_root or not shutil.which("apt-get") or not is_debian():
        say("no chromium and chromedriver here: the tests of the viewer skip")
        return
    quiet = {"stdout": subprocess.DEVNULL}
    command = ["apt-get", "install", "-y", "--no-install-recommends", "chromium", "chromium-driver"]
    if run(["apt-get", "update"], **quiet) or run(command, **quiet):
        say("chromium could not be installed: the tests of the viewer skip")


def is_debian():
    """Tell whether this is Debian; elsewhere the package chromium is only a signpost."""
    try:
        with open("/etc/os-release", encoding="utf-8") as release:
            return "ID=debian" in release.read().split()
    except OSError:
        return False


def commands(task, extra):
    """Return the commands of a task."""
    python = in_venv("python")
    if task == "demo":
        return [[python, "-m", "floodem", "demo", *extra]]
    if task == "test":
        return [[python, "-m", "pytest", *SPREAD, *extra]]
    if task == "docs":
        page = os.path.join("docs", "_build", "html")
        return [[python, "-m", "sphinx", "-W", "--keep-going", *extra, "docs", page]]
    if task == "bench":
        return [[python, os.path.join("benchmarks", "run.py"), *extra]]
    return [
        [python, "-m", "ruff", "check", "."],
        [python, "-m", "ruff", "format", "--check", "."],
        [python, "-m", "mypy", "--strict", "src"],
        [in_venv("lint-imports"), "--no-logo"],
    ]


def main(arguments):
    """Do one task and return its exit code."""
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    own, extra = arguments[:cut], arguments[cut + 1 :]
    gpu = "--gpu" in own
    words = [word for word in own if word != "--gpu"]
    if len(words) != 1 or words[0] not in EXTRAS:
        sys.stderr.write(USAGE)
        return 0 if words in (["-h"], ["--help"]) else 2
    task = words[0]
    try:
        require_python()
        make_venv()
        install(EXTRAS[task])
        look_for_card(gpu)
        if task == "test":
            install_browser()
        codes = [run(command) for command in commands(task, extra)]
    except Refusal as refusal:
        sys.stderr.write("error: {0}\n".format(refusal))
        return EXIT_REFUSED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
