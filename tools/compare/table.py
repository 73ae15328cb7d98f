#!/usr/bin/env python3
"""Writes what the comparisons measured into a document, between `<!-- table:speed begin -->` and its end.

    python3 tools/compare/train_step_compare.py ... --json step.json
    python3 tools/compare/inference.py ... --json inference.json
    python3 tools/compare/table.py step.json inference.json --into README.md

Without --into the table goes to standard output. Needs Python alone.
"""
import argparse, json, sys
from pathlib import Path

VERSIONS = {"PyTorch": "torch", "ONNX Runtime": "onnxruntime"}


def milliseconds(seconds):
    """Three digits, as `limbeck report` prints times."""
    value = seconds * 1e3
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


def rows(measured):
    """One line of the table for each comparison in a file."""
    for result in measured["results"]:
        # `PyTorch, eager` is PyTorch 2.x.y, eager.
        name, comma, how = result["peer"].partition(",")
        peer = f"{name} {measured.get(VERSIONS.get(name), '')}".strip() + comma + how
        yield (f"| {result['title']} | {peer} | {milliseconds(result['peer_seconds'])} | {milliseconds(result['ours_seconds'])} "
               f"| {result['ratio']:.2f}× ({min(result['ratios']):.2f}–{max(result['ratios']):.2f}) |")


def table(files):
    """The Markdown of all files, with what they were measured on below it."""
    lines, notes, sides = [], [], set()
    for file in files:
        measured = json.loads(file.read_text())
        sides |= {result["ours"] for result in measured["results"]}
        lines += rows(measured)
        places = [measured["machine"], *([measured["gpu"]] if "gpu" in measured else [])]
        note = f"{'; '.join(places)}; limbeck at commit {measured.get('commit', 'unknown')}"
        if note not in notes:
            notes.append(note)
    if len(sides) != 1:
        sys.exit(f"the files compare with {', '.join(sorted(sides)) or 'nothing'}: give those of one side alone")
    head = [f"| what | peer | peer ms | {sides.pop()} ms | ratio (rounds) |", "|---|---|--:|--:|--:|"]
    return "\n".join([*head, *lines, "", "; ".join(notes) + "."])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="what --json of the comparisons wrote")
    parser.add_argument("--into", type=Path, metavar="FILE", help="the document; everything between its markers is replaced")
    args = parser.parse_args()
    made = table(args.files)
    if not args.into:
        return print(made)
    begin, end = "<!-- table:speed begin -->", "<!-- table:speed end -->"
    text = args.into.read_text()
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        sys.exit(f"{args.into}: write `{begin}` and `{end}`, once each, where the table shall stand")
    args.into.write_text(text[:text.index(begin)] + begin + "\n" + made + "\n" + text[text.index(end):])


if __name__ == "__main__":
    main()
