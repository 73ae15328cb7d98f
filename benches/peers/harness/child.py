"""A measured program, seen from the harness: a process that answers lines of JSON.

Its first line is {"ready": true, "version": ...}, once its model is loaded. Then, for each line

    {"texts": [[ids]], "warm": n, "calls": n, "budget": seconds}

it computes the logits `warm` times unmeasured and then until `calls` or `budget` is used up, and answers

    {"seconds": [...], "logits": [[...]]}       by its own clock; from ids in memory to logits in memory

or {"error": "..."}. limbeck's worker also takes {"text": "..."} instead of texts: to a label, tokenization included. The end of
standard input ends it. Whoever does not work waits in a read and uses no CPU.
"""
import json, os, select, subprocess, time


class Failed(Exception):
    """A worker that gave an error, died or said nothing."""


class Child:
    def __init__(self, command, cores, threads, log, priority=False, patience=900):
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS", "CANDLE_NUM_THREADS")
        environment = {**os.environ, **{name: str(threads) for name in names}, "CUDA_VISIBLE_DEVICES": ""}
        self.patience, self.log, self.rest = patience, log, b""
        before = os.sched_getaffinity(0)
        with open(log, "ab") as errors:
            os.sched_setaffinity(0, cores)  # inherited; the parent goes back at once
            self.spawned = time.perf_counter()
            try:
                self.process = subprocess.Popen([str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                                stderr=errors, env=environment, start_new_session=priority)
            except OSError as error:
                raise Failed(str(error)) from None
            finally:
                os.sched_setaffinity(0, before)
        if priority:
            self._hurry()
        try:
            self.first = self._read()
            self.version = self.first.get("version")
        except Failed:
            self.close()
            raise

    def _hurry(self):
        """Before all others, as far as we may. With sched_autogroup on, niceness counts inside a session only, and the
        session's own weight is another file."""
        try:
            os.setpriority(os.PRIO_PROCESS, self.process.pid, -20)
            with open(f"/proc/{self.process.pid}/autogroup", "w") as file:
                file.write("-20")
        except OSError:
            pass

    def _read(self):
        """The next line of JSON; what is no JSON is dropped."""
        end = time.monotonic() + self.patience
        output = self.process.stdout.fileno()
        while True:
            while b"\n" in self.rest:
                line, self.rest = self.rest.split(b"\n", 1)
                if line.startswith(b"{"):
                    return json.loads(line)
            if not select.select([output], [], [], max(0, end - time.monotonic()))[0]:
                raise Failed(f"no answer in {self.patience} s")
            more = os.read(output, 1 << 20)
            if not more:
                raise Failed(f"ended with status {self.process.wait()}: {self._last_words()}")
            self.rest += more

    def _last_words(self):
        with open(self.log, errors="replace") as file:
            said = [line.strip() for line in file if line.strip()]
        return said[-1][:200] if said else "it said nothing"

    def ask(self, **request):
        """The answer to a request."""
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # reading says why
        answer = self._read()
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def peak_memory(self):
        """The most bytes that were resident at once so far."""
        with open(f"/proc/{self.process.pid}/status") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))

    def elapsed(self):
        """Seconds since the process was asked for."""
        return time.perf_counter() - self.spawned

    def libraries(self, folder):
        """Bytes of the program and of all shared libraries below `folder` that the process has mapped: what has to be installed
        for it, without Python, the system's own libraries and what a GPU would need."""
        with open(f"/proc/{self.process.pid}/maps") as file:
            mapped = {line.split(maxsplit=5)[5].strip() for line in file if line.count("/")}
        program = os.path.realpath(f"/proc/{self.process.pid}/exe")
        ours = {path for path in mapped if path.startswith(str(folder)) and (".so" in path or path == program)
                and "nvidia" not in path and "cuda" not in path}
        return sum(os.stat(path).st_size for path in ours)

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
