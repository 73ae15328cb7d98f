#!/usr/bin/env python3
"""limbeck's training step on a GPU against PyTorch's, on the same texts, in one run.

    cargo build --release
    python3 tools/compare/gpu_step_compare.py --model DIR --data train.csv --batch 256,32 --json table.json

B is `limbeck bench MODEL --train --device cuda --precision bf16`; A in turn each mode of gpu_step.py: eager (padded to the longest),
compile (the same through torch.compile) and unpadded (the best we could write in PyTorch). One step each, in turn; PyTorch's bf16 is
autocast over f32 weights, limbeck's is bf16 activations over f32 weights. With --teacher DIR (BERT-base, say) each step begins with
its answers, which the student imitates.
"""
import argparse, json, os, sys
from pathlib import Path

import common

MODES = ["eager", "compile", "unpadded"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="Hugging Face DistilBERT directory, read by both sides")
    parser.add_argument("--data", required=True, help="AG News train.csv")
    parser.add_argument("--batch", default="256,32", help="texts of a step, one or several (default: %(default)s)")
    parser.add_argument("--modes", default=",".join(MODES), help="of PyTorch (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=20, help="rounds of one step each side (default: %(default)s)")
    parser.add_argument("--limbeck", type=Path, default=common.ROOT / "target" / "release" / "limbeck", help="the binary")
    parser.add_argument("--teacher", metavar="DIR", help="a Hugging Face classifier or encoder that both sides' students imitate")
    parser.add_argument("--only-pytorch", action="store_true", help="each mode against a second PyTorch, eager: its side of the table alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    common.add_arguments(parser)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    args = common.parse(parser)
    if visible is None:
        del os.environ["CUDA_VISIBLE_DEVICES"]  # common.py hides GPUs from scripts that compare CPUs
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
    facts, results = common.head(gpu=common.gpu()), []
    for batch in args.batch.split(","):
        shared = ["--data", args.data, "--batch", batch, *(["--teacher", args.teacher] if args.teacher else [])]
        what = f"{'distillation' if args.teacher else 'training'} step, bf16, {batch} texts"
        for mode in args.modes.split(","):
            torch_step = [sys.executable, common.HERE / "gpu_step.py", "--model", args.model, *shared, "--interactive"]
            ours = [args.limbeck, "bench", args.model, "--train", *shared, "--device", "cuda", "--precision", "bf16", "--interactive"]
            ours = common.Child("a second PyTorch, eager", torch_step) if args.only_pytorch else common.Child("limbeck", ours)
            peer = common.Child(f"PyTorch, {mode}", [*torch_step, "--mode", mode])
            results.append(common.take_turns(what, peer, ours, args.rounds, warm_up=5))
    if args.json:
        args.json.write_text(json.dumps({**facts, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
