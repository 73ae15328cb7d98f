#!/usr/bin/env python3
"""Whether an int8 model answers with the same bits on every row of kernels.

    cargo build --release
    python3 tools/compare/isa_bits.py --limbeck-model FILE.limbeck --data AG_NEWS/test.csv --rows 200

Runs `limbeck predict` over the first texts of the table once for each row of kernels that this CPU has, forced by LIMBECK_ISA, and
compares the logits as they are printed: limbeck prints the shortest decimal that reads back as the same float, so equal text
means equal bits. Needs Python alone.
"""
import argparse, json, os, subprocess, sys
from pathlib import Path

import common


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limbeck-model", type=Path, required=True, help="an int8 .limbeck file")
    parser.add_argument("--data", type=Path, required=True, help="AG News csv")
    parser.add_argument("--rows", type=int, default=200, help="texts (default: %(default)s)")
    parser.add_argument("--limbeck", type=Path, default=common.ROOT / "target" / "release" / "limbeck", help="the binary")
    args = parser.parse_args()
    texts, _ = common.read_ag_news(args.data, args.rows)
    lines = "".join(" ".join(text.split()) + "\n" for text in texts)
    listed = subprocess.run([args.limbeck, "kernels", "--json"], check=True, capture_output=True, text=True).stdout
    names = [row["name"] for row in json.loads(listed)["kernels"] if row["available"]]
    logits = {}
    for name in names:
        command = [args.limbeck, "predict", args.limbeck_model]
        answers = subprocess.run(command, env={**os.environ, "LIMBECK_ISA": name}, input=lines, check=True, capture_output=True, text=True)
        logits[name] = [json.dumps(json.loads(line)["logits"]) for line in answers.stdout.splitlines()]
        if len(logits[name]) != len(texts):
            sys.exit(f"{name}: {len(logits[name])} answers to {len(texts)} texts")
    first = names[0]
    for name in names[1:]:
        differing = [row for row, pair in enumerate(zip(logits[first], logits[name])) if pair[0] != pair[1]]
        if differing:
            sys.exit(f"{name} differs from {first} in {len(differing)} of {len(texts)} texts, first in row {differing[0]}")
    if len(names) == 1:
        sys.exit(f"this CPU has one row of kernels only, {first}: nothing to compare")
    print(f"{len(texts)} texts: the same logits, bit for bit, on {', '.join(names)}")


if __name__ == "__main__":
    main()
