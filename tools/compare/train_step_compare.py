#!/usr/bin/env python3
"""limbeck's training step against PyTorch's, on the same texts, in one run.

    cargo build --release
    python3 tools/compare/train_step_compare.py --model DIR --data train.csv --venv .venv

A is train_step.py (32 AG News texts padded to the longest: what transformers' collator makes). B is limbeck on the same 32
texts, which it does not pad:

    limbeck bench MODEL --train --data FILE --batch 32 --precision f32|bf16 --threads 2 --interactive

B answers to the protocol of common.py: `ready`; then for each `go` one step (forward with dropout, backward, clipping at 1.0,
AdamW; texts cut to 256 tokens, tokenized before `ready`), and {"seconds": x, "loss": y, "tokens": n}. One step each, in turn.
"""
import argparse, json, sys
from pathlib import Path

import common


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="Hugging Face DistilBERT directory, read by both sides")
    parser.add_argument("--data", required=True, help="AG News train.csv")
    parser.add_argument("--precision", default="f32,bf16", help="one or both of f32,bf16 (default: both)")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9, help="rounds of one step each side (default: %(default)s)")
    parser.add_argument("--attention", choices=["sdpa", "eager"], default="sdpa", help="PyTorch's attention (default: %(default)s)")
    parser.add_argument("--limbeck", type=Path, default=common.ROOT / "target" / "release" / "limbeck", help="the binary")
    parser.add_argument("--ours", metavar="COMMAND",
                        help="another program for side B ({precision} is filled in); train_step.py itself shows the noise")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    common.add_arguments(parser)
    args = common.parse(parser)
    facts, results = common.head(), []
    shared = ["--data", args.data, "--batch", args.batch, "--threads", args.threads]
    for precision in args.precision.split(","):
        ours = common.Child("limbeck", args.ours.format(precision=precision) if args.ours else
                            [args.limbeck, "bench", args.model, "--train", *shared, "--precision", precision, "--interactive"])
        peer = common.Child("PyTorch", [sys.executable, common.HERE / "train_step.py", "--model", args.model, *shared,
                                        "--precision", precision, "--attention", args.attention, "--interactive"])
        title = f"training step, {precision}, {args.batch} texts, {args.threads} threads"
        results.append(common.take_turns(title, peer, ours, args.rounds))
    if args.json:
        args.json.write_text(json.dumps({**facts, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
