"""From results.json to Markdown: limbeck against the fastest, everybody, and what it takes besides time."""
import re, statistics
from pathlib import Path

from harness import roofline, workloads
from harness.variants import ALL, BOUNDS

BEGIN, END = "<!-- table:peers begin -->", "<!-- table:peers end -->"
KNOWN = {variant.name: variant for variant in ALL}
DENSE = [variant.name for variant in ALL if variant.network == "dense" and not variant.ours]
INT8 = [name for name in DENSE if KNOWN[name].precision == "int8"]
F32 = [name for name in DENSE if KNOWN[name].precision == "f32"]


def quantile(values, share):
    """Between the two nearest."""
    ordered, place = sorted(values), share * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def digits(milliseconds):
    """Three digits."""
    return f"{milliseconds:,.0f}" if milliseconds >= 100 else f"{milliseconds:#.3g}"


def percent(share, places=0):
    return f"{100 * share:.{places}f} %"


def mib(size):
    return f"{size / 2**20:.1f}" if size < 100 * 2**20 else f"{size / 2**20:,.0f}"


def line(*cells):
    return "| " + " | ".join(cells) + " |"


class Results:
    def __init__(self, results):
        self.results = results

    def rounds(self, threads, workload, name):
        return self.results["times"].get(str(threads), {}).get(workload, {}).get(name, {}).get("rounds")

    def median(self, threads, workload, name):
        return statistics.median(self.rounds(threads, workload, name))

    def present(self, threads, workload, names):
        return [name for name in names if self.rounds(threads, workload, name)]

    def ratio(self, threads, workload, name, ours):
        """The median over rounds, and its spread."""
        pairs = list(zip(self.rounds(threads, workload, name), self.rounds(threads, workload, ours)))
        ratios = [a / b for a, b in pairs]
        return statistics.median(ratios), quantile(ratios, 0.1), quantile(ratios, 0.9)

    def shares(self, threads, workload, name):
        """The roofline's share of the time, with the last layer for the first token only and in full."""
        variant = KNOWN[name]
        return [bound and bound / self.median(threads, workload, name)
                for bound in self.results["rooflines"][str(threads)][workload][variant.network + "-" + variant.precision]]

    def headline(self):
        """Rows that set limbeck against the fastest of others."""
        rows = [line("what", "limbeck ms", "of the roofline¹", "compared with", "its ms", "ratio (p10–p90)"), "|---|--:|--:|---|--:|--:|"]
        texts = {workloads.name(n): f"batch 1, {n} tokens" for n in workloads.LENGTHS} | {workloads.RAGGED: "32 ragged texts"}
        one, two = [(1, name) for name in texts], [(2, name) for name in texts]
        for threads, workload in [*one, *two]:
            where = f"{texts[workload]}, {threads} thread{'s' * (threads > 1)}"
            rows += self.compare("int8", threads, workload, where, "limbeck-int8", INT8)
            if rows[-1].count(KNOWN["onnxruntime-int8"].runtime) == 0:
                rows += self.compare("int8", threads, workload, where, "limbeck-int8", ["onnxruntime-int8"], first=False)
        for length in workloads.LENGTHS:
            where = f"{texts[workloads.name(length)]}, 1 thread"
            rows += self.compare("f32", 1, workloads.name(length), where, "limbeck-f32", F32)
        for length in (64, 128):
            where, workload = f"batch 1, {length} tokens, 1 thread", workloads.name(length)
            rows += self.compare("pruned², int8", 1, workload, where, "limbeck-pruned", ["limbeck-int8"])
            rows += self.compare("blocks³, int8", 1, workload, where, "limbeck-blocks", ["limbeck-int8"])
            rows += self.compare("blocks³, int8", 1, workload, where, "limbeck-blocks", ["deepsparse-stripes"], first=False)
            rows += self.compare("blocks³, int8", 1, workload, where, "limbeck-blocks", INT8, first=False)
        return rows

    def compare(self, what, threads, workload, where, ours, others, first=True):
        """One row, or none if one side is absent; `first` is false for a row that goes on about the one above."""
        others = self.present(threads, workload, others)
        if not others or not self.rounds(threads, workload, ours):
            return []
        other = min(others, key=lambda name: self.median(threads, workload, name))
        middle, low, high = self.ratio(threads, workload, other, ours)
        shares = self.shares(threads, workload, ours)
        share = f"{percent(shares[0])} ({percent(shares[1])})" if shares[0] else "–"
        whole = KNOWN[ours].network != "dense" and KNOWN[other].network == "dense"
        return [line(f"{what}, {where}" if first else "", digits(self.median(threads, workload, ours) * 1e3) if first else "",
                     share if first else "", KNOWN[other].runtime + (" (dense)" if whole else ""),
                     digits(self.median(threads, workload, other) * 1e3),
                     f"{middle:.2f}× ({low:.2f}–{high:.2f})")]

    def everybody(self):
        """Milliseconds of all, with the ratio to limbeck in the same precision."""
        columns = [(threads, workload) for threads in (1, 2) for workload in [*map(workloads.name, workloads.LENGTHS), workloads.RAGGED]
                   if any(self.rounds(threads, workload, name) for name in KNOWN)]
        title = {workload: workload[3:] + " tokens" for workload in map(workloads.name, workloads.LENGTHS)} | {workloads.RAGGED: "ragged"}
        titles = [title[workload] + (", 2 threads" if threads == 2 else "") for threads, workload in columns]
        rows = [line("ms (÷ limbeck⁴)", "", *titles), "|---|---|" + "--:|" * len(columns)]
        for name, variant in KNOWN.items():
            cells = []
            for threads, workload in columns:
                ours = f"limbeck-{variant.precision}"
                if not self.rounds(threads, workload, name):
                    cells.append("")
                elif name == ours or not self.rounds(threads, workload, ours):
                    cells.append(digits(self.median(threads, workload, name) * 1e3))
                else:
                    ratio = self.ratio(threads, workload, name, ours)[0]
                    cells.append(f"{digits(self.median(threads, workload, name) * 1e3)} ({ratio:.2f}×)")
            if any(cells):
                rows.append(line(variant.runtime, variant.precision, *cells))
        for precision in ("f32", "int8"):
            for place, what in enumerate(("first token", "full")):
                bounds = [self.results["rooflines"][str(threads)][workload][f"dense-{precision}"][place] for threads, workload in columns]
                if all(bounds):
                    rows.append(line(f"roofline, {what}", precision, *(digits(bound * 1e3) for bound in bounds)))
        return rows

    def footprint(self):
        rows = [line("", "version", "", "start to first answer, ms (p10–p90)", "file, MiB", "peak memory, MiB (beyond the file)", "program and libraries, MiB", "logits off⁵"),
                "|---|---|---|--:|--:|--:|--:|--:|"]
        for name, one in self.results["footprint"].items():
            variant, starts = KNOWN[name], one["start"]
            distances = [found[name]["distance"] for times in self.results["times"].values() for found in times.values()
                         if "distance" in found.get(name, {})]
            start = f"{digits(statistics.median(starts) * 1e3)} ({digits(quantile(starts, .1) * 1e3)}–{digits(quantile(starts, .9) * 1e3)})"
            version = re.split("[-+]", one["version"])[0]
            memory = f"{mib(one['peak_memory'])} ({(one['peak_memory'] - one['file']) / 2**20:+,.1f})"
            rows.append(line(variant.runtime, version, variant.precision, start, mib(one["file"]), memory, mib(one["library"]),
                             ("< 0.01 %" if max(distances) < 1e-4 else percent(max(distances), 2)) if distances else "–"))
        return rows

    def notes(self):
        results, peaks = self.results, self.results["peaks"]
        notes = ["¹ The bound from the peaks of the same run (" + "; ".join(
            f"{threads} thread{'s' * (threads != '1')}: " + ", ".join(
                f"{name} {peak[key]:,.0f} {unit}" for name, key, unit in
                (("int8", "int8", "Gop/s"), ("f32", "f32", "Gop/s"), ("reading", "bytes_int8", "GB/s")) if peak[key])
            for threads, peak in peaks.items()) + "), the last layer for the first token only; in brackets: for all tokens. "
            "² 60 % of the heads and FFN units deleted. ³ 80 % of each encoder matrix zero in blocks of 16 × 4; DeepSparse in blocks "
            "of 4. ⁴ limbeck dense, in the same precision. ⁵ The largest distance from PyTorch's f32 logits, as a share of the largest "
            f"logit; beyond {percent(BOUNDS['f32'], 2)} (f32) or {percent(BOUNDS['int8'])} (int8) nothing is timed."]
        for name, one in results["times"].get("1", {}).get("text", {}).items():
            share = statistics.median(one["shares"])
            notes.append(f"Text to label, {KNOWN[name].runtime} {KNOWN[name].precision}, {one['tokens']} tokens: "
                         f"{digits(statistics.median(one['rounds']) * 1e3)} ms, of which tokenization {percent(share, 2)}.")
        for name, why in results["absent"].items():
            notes.append(f"Absent: {name}: {why}.")
        notes.append(f"{results['machine']}; kernels {results['kernels']}; limbeck at commit {results['commit']}; {results['model']}; "
                     f"{results['plan']['rounds']} rounds; {results['ragged_tokens']} tokens in the ragged texts; {results['date']}.")
        return notes

    def markdown(self):
        parts = [self.headline(), self.everybody(), self.footprint()]
        parts = [part for part in parts if len(part) > 2]
        return "\n".join("\n".join(part) + "\n" for part in parts) + "\n" + "\n".join(note + "  " for note in self.notes()).rstrip() + "\n"


def rooflines(models, texts, peaks):
    """Thread count -> workload -> network-precision -> [first token, full]."""
    found = {}
    there = [variant for variant in ALL if (models / variant.network).exists()]
    for threads, peak in peaks.items():
        for workload, rows in texts.items():
            for variant in there:
                both = [roofline.seconds(models / variant.network, workloads.lengths(rows), variant.precision, peak, first) for first in (True, False)]
                found.setdefault(str(threads), {}).setdefault(workload, {})[f"{variant.network}-{variant.precision}"] = both
    return found


def replace(document, markdown):
    """Puts the tables between the document's markers; returns what is wrong, or None."""
    path = Path(document)
    text = path.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        return f"{path}: write `{BEGIN}` and `{END}`, once each, where the tables shall stand"
    path.write_text(text[: text.index(BEGIN)] + BEGIN + "\n" + markdown + text[text.index(END):])
    return None
