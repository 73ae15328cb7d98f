"""What the comparison scripts share: the line protocol, the turns, the data, the environment.

The line protocol. A measured program is a child process that
  1. loads its model and its data, then prints one line `ready` (a JSON object may follow on that line: name, version);
  2. for each line `go` on its standard input runs the measured work once and prints one line {"seconds": x}, by its own
     clock, the work alone. Further keys are allowed: "tokens" (real tokens, padding not counted; the parent stops when the
     two sides disagree), "loss", "logits";
  3. ends at the end of its standard input.
Standard output carries these lines only; everything else goes to standard error.

The turns. Both children are alive for the whole run and work alternately, A B A B, on the same cores; the one that does not
work waits in a read and uses no CPU. A drift of the clock rate so hits both sides of a round alike, and the figure to
quote is the median over rounds of the ratio peer / limbeck. A busy neighbour does not hit both alike: threads that
wait by spinning (PyTorch's) suffer most, so measure on an idle machine. The parent checks the children's clocks with its own.

This module and the parents need Python 3.10 and nothing else; torch and friends are imported where they are used.
"""
import csv, json, os, platform, shlex, statistics, subprocess, sys, time, venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
REQUIREMENTS = HERE / "requirements.txt"
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"


def add_arguments(parser):
    """The arguments that every script has."""
    parser.add_argument("--venv", type=Path, metavar="DIR", help="run in this virtual environment; made with pip if it is missing")
    parser.add_argument("--threads", type=int, default=2, help="threads of each side (default: %(default)s)")
    parser.add_argument("--cores", metavar="LIST", help="pin both sides to these cores, as 0,1 (Linux)")


def parse(parser):
    """Parses the command line, then moves into the environment and onto the cores that it names."""
    args = parser.parse_args()
    if args.venv:
        enter_venv(args.venv)
    if args.cores:
        os.sched_setaffinity(0, {int(core) for core in args.cores.split(",")})
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(args.threads)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the peers run on the CPU, as limbeck does here
    os.environ["TOKENIZERS_PARALLELISM"], os.environ["RAYON_NUM_THREADS"] = "true", str(args.threads)
    return args


def enter_venv(directory):
    """Makes the environment if it is missing or older than requirements.txt, and starts this script again inside it."""
    directory = directory.resolve()
    if Path(sys.prefix).resolve() == directory:
        return
    python, done = directory / "bin" / "python", directory / "requirements.installed"
    if not done.exists() or done.read_text() != REQUIREMENTS.read_text():
        print(f"making {directory} with {REQUIREMENTS.name}", file=sys.stderr)
        if not python.exists():
            venv.create(directory, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet"]
        # The CPU wheel spares 3 GB of GPU libraries; where its index cannot be reached, PyPI's wheel follows.
        torch = next(line for line in REQUIREMENTS.read_text().split() if line.startswith("torch=="))
        subprocess.run([*pip, "--index-url", CPU_WHEELS, "--retries", "0", torch], stdout=sys.stderr, check=False)
        subprocess.run([*pip, "-r", str(REQUIREMENTS)], stdout=sys.stderr, check=True)
        done.write_text(REQUIREMENTS.read_text())
    os.execv(python, [str(python), *sys.argv])


def machine():
    """The CPU's name and the cores that this process may use."""
    try:
        fields = dict(reversed([[part.strip() for part in line.split(":", 1)] for line in open("/proc/cpuinfo") if ":" in line]))
        name = fields["model name"]
        if not any(letter.isdigit() for letter in name):  # a hypervisor has left the number out
            name += f" (family {fields['cpu family']}, model {fields['model']})"
    except (OSError, KeyError):
        name = platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} core{'s' * (cores != 1)}"


def versions():
    """The installed versions of what is compared with."""
    from importlib.metadata import PackageNotFoundError, version
    found = {"python": platform.python_version()}
    for package in ("torch", "transformers", "onnxruntime"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            pass
    return found


def read_ag_news(path, limit=None):
    """The first `limit` rows (None: all) of an AG News csv: texts (title + " " + description, unmodified) and labels 0..3."""
    texts, labels = [], []
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.reader(file):
            if limit is not None and len(texts) == limit:
                break
            labels.append(int(row[0]) - 1)
            texts.append(f"{row[1]} {row[2]}")
    return texts, labels


def encode(model_dir, texts, max_tokens):
    """Token ids of each text, not padded, by the model directory's own tokenizer."""
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(model_dir, use_fast=True)
    return tokenizer(texts, truncation=True, max_length=max_tokens, padding=False)["input_ids"]


def pad(rows):
    """Ids and attention mask, int64 [rows, longest row]."""
    import torch
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    return ids, mask


def serve(about, work):
    """The child's side of the protocol: `work()` runs the measured work once and returns the answer."""
    print("ready", json.dumps(about), flush=True)
    for line in sys.stdin:
        if line.strip() == "go":
            print(json.dumps(work()), flush=True)


class Child:
    """The parent's side: one measured program."""
    def __init__(self, name, command):
        self.name, self.seconds, self.walls, self.answer = name, [], [], {}
        command = shlex.split(command) if isinstance(command, str) else [str(part) for part in command]
        self.command = shlex.join(command)
        try:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        except OSError as error:
            sys.exit(f"{name}: cannot start `{self.command}`: {error}")
        self.about = self._read("ready")[len("ready"):].strip()

    def _read(self, start):
        for line in self.process.stdout:
            if line.startswith(start):
                return line
            print(f"{self.name}: {line}", end="", file=sys.stderr)
        sys.exit(f"{self.name}: `{self.command}` ended with status {self.process.wait()} where a line `{start}...` was due")

    def go(self, keep):
        """One turn: median seconds of `keep` runs; the first of several only warms the caches that the other side used."""
        turn = []
        time.sleep(0.02)  # the other side's threads may spin for some milliseconds after their work
        for i in range(keep + (keep > 1)):
            start = time.perf_counter()
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
            self.answer = json.loads(self._read("{"))
            if i or keep == 1:
                turn.append(self.answer["seconds"])
                self.walls.append(time.perf_counter() - start)
        self.seconds += turn
        return statistics.median(turn)

    def close(self):
        """Ends the child, and complains if its clock and ours differ by more than a tenth and a millisecond."""
        self.process.stdin.close()
        self.process.wait()
        own, wall = statistics.median(self.seconds), statistics.median(self.walls)
        if wall > 1.1 * own + 1e-3:
            print(f"{self.name}: says {own:.4f} s, but its answers take {wall:.4f} s: work outside its clock", file=sys.stderr)


def take_turns(title, peer, ours, rounds, runs=1, warm_up=2):
    """Runs the children alternately, prints every round, and returns the summary. `runs`: measured runs per turn."""
    print(f"\n{title}\n  A  {peer.name}: {peer.about}\n  B  {ours.name}: {ours.about}")
    for _ in range(warm_up):
        for child in (peer, ours):
            child.go(runs)
    if (tokens := peer.answer.get("tokens")) != ours.answer.get("tokens", tokens):
        sys.exit(f"not the same work: {peer.name} has {tokens} tokens, {ours.name} {ours.answer['tokens']}")
    peer.seconds, ours.seconds, peer.walls, ours.walls = [], [], [], []
    ratios = []
    for i in range(rounds):
        a, b = peer.go(runs), ours.go(runs)
        ratios.append(a / b)
        print(f"  round {i + 1:2}  A {a * 1e3:10.3f} ms  B {b * 1e3:10.3f} ms  A / B {a / b:.3f}", flush=True)
    medians = [statistics.median(child.seconds) for child in (peer, ours)]
    ratio = statistics.median(ratios)
    print(f"  median    A {medians[0] * 1e3:10.3f} ms  B {medians[1] * 1e3:10.3f} ms  A / B {ratio:.3f}", end="")
    print(f"  (rounds {min(ratios):.3f} to {max(ratios):.3f})")
    last = {side: {k: v for k, v in child.answer.items() if k != "seconds"} for side, child in (("peer", peer), ("ours", ours))}
    for child in (peer, ours):
        child.close()
    return {"title": title, "peer": peer.name, "peer_about": peer.about, "peer_seconds": medians[0],
            "ours": ours.name, "ours_about": ours.about, "ours_seconds": medians[1], "ratio": ratio, "ratios": ratios, "last": last}


def commit():
    """The commit of the checkout that limbeck was built from, with a + for changes that are not in it."""
    git = ["git", "-C", str(ROOT)]
    try:
        name = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "--untracked-files=no"], check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name + "+" * bool(changed.strip())


def gpu():
    """Name and driver of the first GPU that may be used, as nvidia-smi has them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader", f"--id={visible}"]
    try:
        name, driver = subprocess.run(query, check=True, capture_output=True, text=True).stdout.strip().split(", ")
    except (OSError, ValueError, subprocess.CalledProcessError):
        return "unknown GPU"
    return f"{name}, driver {driver}"


def head(**more):
    """Prints the machine, the versions and what else is known above a table, and returns them for the JSON file."""
    facts = {"machine": machine(), **more, "load": os.getloadavg()[0], "commit": commit(), **versions()}
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    if facts["load"] > 0.5:
        print("note: the machine is busy: unfair to PyTorch, whose threads spin; measure when idle", file=sys.stderr)
    return facts
