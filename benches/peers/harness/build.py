"""Environments, programs and model files: made once, kept in the cache folder, made again when what they come from changes.

Everything that is made has a stamp beside it: the hash of the scripts, requirements and files that it was made from. Whatever
cannot be made raises Absent with the reason, which ends up in the table.
"""
import hashlib, json, os, shutil, subprocess, sys, venv
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
ROOT = HERE.parent.parent
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"
DEEPSPARSE_PYTHON = ["3.11", "3.10", "3.9", "3.8"]  # it has no wheels for later ones


class Absent(Exception):
    """Something that cannot be measured here, and why."""


def digest(*parts):
    """A short hash of texts and of files' contents."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part.read_bytes() if isinstance(part, Path) else str(part).encode())
        found.update(b"\0")
    return found.hexdigest()[:16]


class Tools:
    """Where programs are, and how model files come to be. `log` takes what the commands say."""

    def __init__(self, cache):
        self.cache, self.log, self.failed, self.built = cache, cache / "build.log", {}, {}
        cache.mkdir(parents=True, exist_ok=True)
        self.target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))

    def say(self, text):
        print(text, file=sys.stderr, flush=True)

    def call(self, *command, cwd=None, **environment):
        """Runs a command; Absent, with the last line it said, if it fails."""
        with open(self.log, "ab") as log:
            start = log.tell()
            try:
                done = subprocess.run([str(part) for part in command], stdout=log, stderr=log, cwd=cwd,
                                      env={**os.environ, **environment}).returncode
            except OSError as error:
                raise Absent(f"{command[0]}: {error.strerror}") from None
        if done:
            with open(self.log, "rb") as log:
                log.seek(start)
                lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
            errors = [line for line in lines if line.lower().startswith("error")] or lines[-1:] or ["it said nothing"]
            raise Absent(f"`{Path(command[0]).name}` failed: {errors[0][:160]}")

    def once(self, stamp, key, what, make):
        """Calls `make` unless the stamp bears the key. What failed once in this run fails again at once."""
        if stamp in self.failed:
            raise Absent(self.failed[stamp])
        if stamp.exists() and stamp.read_text() == key:
            return
        self.say(f"making {what}")
        stamp.unlink(missing_ok=True)
        stamp.parent.mkdir(parents=True, exist_ok=True)
        try:
            make()
        except Absent as reason:
            self.failed[stamp] = str(reason)
            raise
        stamp.write_text(key)

    def python(self, name):
        """The Python of an environment of requirements/."""
        directory, wanted = self.cache / "venv" / name, HERE / "requirements" / f"{name}.txt"
        python = directory / "bin" / "python"

        def make():
            shutil.rmtree(directory, ignore_errors=True)
            if name == "deepsparse":
                self.call(self._old_python(), "-m", "venv", directory)
            else:
                venv.create(directory, with_pip=True)
            torch = [line for line in wanted.read_text().split() if line.startswith("torch==")]
            if torch:  # the CPU wheel spares 3 GB of GPU libraries; where its index cannot be reached, PyPI's follows
                try:
                    self.call(python, "-m", "pip", "install", "--index-url", CPU_WHEELS, "--retries", "0", *torch)
                except Absent:
                    pass
            self.call(python, "-m", "pip", "install", "-r", wanted)

        self.once(self.cache / "venv" / f"{name}.stamp", digest(wanted), f"environment {name}", make)
        return python

    def _old_python(self):
        if f"{sys.version_info.major}.{sys.version_info.minor}" in DEEPSPARSE_PYTHON:
            return sys.executable
        found = [path for version in DEEPSPARSE_PYTHON if (path := shutil.which(f"python{version}"))]
        if not found:
            raise Absent("needs Python 3.8 to 3.11, and none is on the path")
        return found[0]

    def program(self, name):
        """A worker in Rust, stripped; built by cargo, which knows by itself what has changed."""
        if name in self.failed:
            raise Absent(self.failed[name])
        if name not in self.built:
            try:
                self.built[name] = self._build(name, self.cache / "programs" / name)
            except Absent as reason:
                self.failed[name] = str(reason)
                raise
        return self.built[name]

    def _build(self, name, built):
        cargo = ["cargo", "build", "--release"]
        if name == "limbeck":
            self.call(*cargo, "--package", "limbeck-peers-worker", cwd=ROOT)
            binary = self.target / "release" / "limbeck-peers-worker"
        else:
            target = self.cache / "cargo"
            self.call(*cargo, "--locked", cwd=HERE / "workers" / name, CARGO_TARGET_DIR=str(target))
            binary = target / "release" / f"peer-{name}"
        built.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(binary, built)
        if shutil.which("strip"):
            self.call("strip", built)
        return built

    def limbeck(self):
        """The command limbeck, for `limbeck export`."""
        if "export" not in self.built:
            self.call("cargo", "build", "--release", "--package", "limbeck-tools", cwd=ROOT)
            self.built["export"] = self.target / "release" / "limbeck"
        return self.built["export"]


def versions(tools, environment, packages):
    """Installed versions of packages in an environment."""
    script = "import sys, json; from importlib.metadata import version; print(json.dumps({p: version(p) for p in sys.argv[1:]}))"
    done = subprocess.run([tools.python(environment), "-c", script, *packages], capture_output=True, text=True)
    return json.loads(done.stdout) if done.returncode == 0 else {}
