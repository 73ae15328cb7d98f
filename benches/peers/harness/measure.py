"""What is measured, and in which order.

All workers of a thread count are alive at once and take turns: in each round every worker has one turn, the order reversed from
round to round, and a turn begins with unmeasured calls. A drift of the machine so hits all alike. A turn gives the median of its
calls; figures are medians over rounds, and ratios are taken within a round before their median is taken.
"""
import json, os, statistics
from dataclasses import dataclass

from harness import workloads
from harness.child import Child, Failed
from harness.variants import BOUNDS
from models import vocabulary


@dataclass
class Plan:
    """How much is measured: `budget` is the seconds of measured calls in a turn."""

    rounds: int = 9
    starts: int = 5
    budget: float = 0.3
    warm: int = 4
    text_tokens: int = 50
    priority: bool = False


class Bench:
    """Measures variants whose files and programs are made; `say` takes a line for the person who waits."""

    def __init__(self, tools, models, plan, say):
        self.tools, self.models, self.plan, self.say = tools, models, plan, say
        self.texts = json.loads((models / "texts.json").read_text())
        self.absent = {}

    def cores(self, threads):
        """The last ones that this process may use: the first serve interrupts."""
        allowed = sorted(os.sched_getaffinity(0))
        return set(allowed[-threads:])

    def start(self, variant, threads):
        log = self.tools.cache / "logs" / f"{variant.name}.log"
        log.parent.mkdir(exist_ok=True)
        return Child(variant.command(self.tools, self.models, threads), self.cores(threads), threads, log, self.plan.priority)

    def drop(self, variant, why):
        self.say(f"  {variant.name}: absent: {why}")
        self.absent[variant.name] = why

    def present(self, variants):
        return [variant for variant in variants if variant.name not in self.absent]

    def peaks(self, threads, sizes):
        """What the cores reach now; `sizes` are bytes of weights, by precision, which the bandwidth is taken at."""
        found = {}
        for precision, size in sizes.items():
            command = [self.tools.program("limbeck"), "--peaks", threads, max(1, size >> 20)]
            child = Child(command, self.cores(threads), threads, self.tools.cache / "logs" / "peaks.log", self.plan.priority)
            found |= child.first
            found[f"bytes_{precision}"] = found.pop("bytes")
            child.close()
        return found

    def footprint(self, variants):
        """Of each variant: seconds from starting the process to the first logits of 64 tokens, the most memory that it took until
        then, and the size of the program and of the libraries that it loaded from its own folders."""
        found = {variant.name: {"start": []} for variant in variants}
        for number in range(self.plan.starts + 1):  # the first start warms the page cache
            for variant in self.present(variants):
                try:
                    child = self.start(variant, 1)
                    child.ask(texts=self.texts[workloads.name(64)], warm=0, calls=1, budget=0)
                    seconds = child.elapsed()
                    one = found[variant.name]
                    if number:
                        one["start"].append(seconds)
                    one["peak_memory"] = child.peak_memory()
                    one["library"] = child.libraries(self.tools.cache)
                    one["version"] = child.version
                    child.close()
                except Failed as reason:
                    self.drop(variant, str(reason))
        for variant in self.present(variants):
            found[variant.name]["file"] = variant.bytes(self.models)
        return {variant.name: found[variant.name] for variant in self.present(variants)}

    def check(self, variant, workload, logits):
        """The largest distance from PyTorch's f32, as a share of the largest reference logit; Failed beyond the bound."""
        reference = json.loads((self.models / variant.network / "reference.json").read_text())[workload]
        largest = max(abs(value) for row in reference for value in row)
        if [len(row) for row in logits] != [len(row) for row in reference]:
            raise Failed(f"{workload}: {len(logits)} rows of logits to {len(reference)} texts")
        if any(value is None for row in logits for value in row):
            raise Failed(f"{workload}: a logit is no finite number")
        distance = max(abs(a - b) for row, known in zip(logits, reference) for a, b in zip(row, known)) / largest
        if not distance <= BOUNDS[variant.precision]:  # a NaN is beyond every bound
            raise Failed(f"{workload}: logits lie {distance:.2%} from PyTorch's, and {BOUNDS[variant.precision]:.2%} is the bound")
        return distance

    def times(self, variants, threads, names):
        """Workload -> variant -> {"rounds": medians in seconds, "calls": all seconds, "distance"}."""
        self.say(f"{threads} thread{'s' * (threads > 1)}, cores {sorted(self.cores(threads))}")
        children, found = {}, {}
        for variant in self.present(variants):
            try:
                children[variant] = self.start(variant, threads)
            except Failed as reason:
                self.drop(variant, str(reason))
        for workload in names:
            found[workload] = {}
            for variant in list(children):
                self._guarded(children, variant, self._first, children.get(variant), variant, workload, found[workload])
            for number in range(self.plan.rounds):
                for variant in list(children)[:: 1 if number % 2 == 0 else -1]:
                    self._guarded(children, variant, self._turn, children[variant], found[workload][variant.name], workload)
            found[workload] = {variant.name: found[workload][variant.name] for variant in children}
            for variant in children:
                one = found[workload][variant.name]
                self.say(f"  {workload:9} {variant.name:20} {statistics.median(one['rounds']) * 1e3:9.3f} ms  "
                         f"logits {one['distance']:.4%} off")
        if threads == 1:
            found["text"] = self._texts(children)
        for child in children.values():
            child.close()
        return found

    def _guarded(self, children, variant, work, *arguments):
        """Does the work; a worker that fails leaves the run, with the reason."""
        try:
            work(*arguments)
        except Failed as reason:
            self.drop(variant, str(reason))
            children.pop(variant).close()

    def _first(self, child, variant, workload, found):
        """Compiles for the shape, warms up and checks the answer: nothing is timed before it is right."""
        answer = child.ask(texts=self.texts[workload], warm=self.plan.warm, calls=1, budget=0)
        found[variant.name] = {"rounds": [], "calls": [], "distance": self.check(variant, workload, answer["logits"])}

    def _turn(self, child, found, workload):
        warm = 1 if workload == workloads.RAGGED else self.plan.warm
        answer = child.ask(texts=self.texts[workload], warm=warm, calls=1000, budget=self.plan.budget)
        found["rounds"].append(statistics.median(answer["seconds"]))
        found["calls"] += answer["seconds"]

    def _texts(self, children):
        """From a text of about 50 tokens to its label, for limbeck: which share of the time tokenization takes."""
        found = {}
        for variant, child in children.items():
            if not variant.ours:
                continue
            words, tokens = 1, 0
            while tokens < self.plan.text_tokens:
                words += 1
                tokens = child.ask(text=vocabulary.text(words), warm=0, calls=1)["tokens"]
            one = found[variant.name] = {"tokens": tokens, "rounds": [], "shares": []}
            for _ in range(self.plan.rounds):
                answer = child.ask(text=vocabulary.text(words), warm=self.plan.warm, calls=1000, budget=self.plan.budget)
                one["rounds"].append(statistics.median(answer["seconds"]))
                one["shares"].append(sum(answer["tokenization"]) / sum(answer["seconds"]))
        return found
