#!/usr/bin/env python3
"""limbeck's int8 inference against ONNX Runtime's dynamic int8, batch 1, in one run.

    cargo build --release
    python3 tools/compare/inference.py --model DIR --limbeck-model FILE.limbeck --cores 1 --venv .venv

A is the Hugging Face directory, exported by torch.onnx (opset 17, eager attention) and quantized by
onnxruntime.quantization.quantize_dynamic, int8 weights per channel, every graph optimisation of the session on;
onnxruntime.transformers.optimizer is not applied. The .onnx is kept and made again when the model is newer. B is

    limbeck bench FILE.limbeck --interactive --seq N --threads 1

and answers to the protocol of common.py: `ready`; for each `go` one forward of one text of N tokens, ids in, logits out, and
{"seconds": x, "logits": [...]}. Token 0 is 101, the last is 102, token j between them 1000 + 7919 j mod (vocabulary - 1000).
A turn is one warm-up forward and --forwards measured ones, of which the median counts. When FILE.limbeck comes from DIR
(`limbeck export --format hf`, `limbeck quantize`) the logits show that both run the same network; a bare encoder has a random
head on each side, and then only the times compare.
"""
import argparse, json, sys, time
from pathlib import Path

import common


def export(model_dir, path):
    """Writes the quantized ONNX file of a Hugging Face directory."""
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from transformers import AutoModelForSequenceClassification
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(model_dir, dtype=torch.float32, attn_implementation="eager").eval()

    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask):
            return self.model(input_ids=input_ids, attention_mask=attention_mask).logits

    path.parent.mkdir(parents=True, exist_ok=True)
    plain, unfinished = path.with_suffix(".f32.onnx"), path.with_suffix(".part")
    ids, mask = common.pad([[101] + [2000] * 30 + [102], [101] + [2000] * 18 + [102]])
    axes = {0: "batch", 1: "tokens"}
    torch.onnx.export(Logits().eval(), (ids, mask), str(plain), input_names=["input_ids", "attention_mask"],
                      output_names=["logits"], dynamic_axes={"input_ids": axes, "attention_mask": axes, "logits": {0: "batch"}},
                      opset_version=17, dynamo=False)
    quantize_dynamic(str(plain), str(unfinished), per_channel=True, weight_type=QuantType.QInt8, extra_options={"MatMulConstBOnly": True})
    plain.unlink()
    unfinished.rename(path)


def worker(args):
    """Side A: ONNX Runtime, one forward for each `go`."""
    import numpy as np
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = args.threads, 1
    session = onnxruntime.InferenceSession(str(args.onnx), options, providers=["CPUExecutionProvider"])
    vocabulary = json.loads((args.model / "config.json").read_text())["vocab_size"]
    between = [1000 + 7919 * j % (vocabulary - 1000) for j in range(1, args.seq - 1)]
    feed = {"input_ids": np.array([[101, *between, 102]], np.int64), "attention_mask": np.ones((1, args.seq), np.int64)}

    def forward():
        start = time.perf_counter()
        logits = session.run(None, feed)[0]
        return {"seconds": time.perf_counter() - start, "tokens": args.seq, "logits": logits[0].tolist()}

    about = {"name": "ONNX Runtime", "version": onnxruntime.__version__, "threads": args.threads}
    common.serve({**about, "file_bytes": args.onnx.stat().st_size}, forward)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face DistilBERT directory")
    parser.add_argument("--limbeck-model", type=Path, help="the .limbeck file of side B")
    parser.add_argument("--lengths", default="16,32,64,128,256", help="tokens of the text (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="(default: %(default)s)")
    parser.add_argument("--forwards", type=int, default=20, help="measured forwards in a turn (default: %(default)s)")
    parser.add_argument("--onnx", type=Path, help="where the quantized ONNX file is kept (default: target/compare/<model>.int8.onnx)")
    parser.add_argument("--limbeck", type=Path, default=common.ROOT / "target" / "release" / "limbeck", help="the binary")
    parser.add_argument("--ours", metavar="COMMAND", help="another program for side B ({seq} is filled in)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--seq", type=int, help=argparse.SUPPRESS)
    common.add_arguments(parser)
    parser.set_defaults(threads=1)
    args = common.parse(parser)
    args.onnx = args.onnx or common.ROOT / "target" / "compare" / f"{args.model.resolve().name}.int8.onnx"
    if args.worker:
        return worker(args)
    if not (args.ours or args.limbeck_model):
        parser.error("--limbeck-model is missing: the .limbeck file to compare")
    if not args.onnx.exists() or args.onnx.stat().st_mtime < (args.model / "model.safetensors").stat().st_mtime:
        print(f"exporting {args.model} to {args.onnx}", file=sys.stderr)
        export(args.model, args.onnx)
    facts, results = common.head(), []
    for length in map(int, args.lengths.split(",")):
        ours = common.Child("limbeck", args.ours.format(seq=length) if args.ours else
                            [args.limbeck, "bench", args.limbeck_model, "--interactive", "--seq", length, "--threads", args.threads])
        peer = common.Child("ONNX Runtime", [sys.executable, __file__, "--worker", "--model", args.model, "--onnx", args.onnx,
                                             "--seq", length, "--threads", args.threads])
        title = f"int8 inference, batch 1, {length} tokens, {args.threads} thread{'s' * (args.threads > 1)}"
        results.append(common.take_turns(title, peer, ours, args.rounds, args.forwards))
        a, b = (results[-1]["last"][side].get("logits", []) for side in ("peer", "ours"))
        if a and len(a) == len(b):
            print(f"  largest difference of the logits {max(abs(x - y) for x, y in zip(a, b)):.4f}")
    print("\n  tokens   ONNX Runtime ms   limbeck ms   ratio")
    for length, row in zip(args.lengths.split(","), results):
        print(f"  {length:>6}   {row['peer_seconds'] * 1e3:15.3f}   {row['ours_seconds'] * 1e3:10.3f}   {row['ratio']:5.2f}")
    if args.json:
        args.json.write_text(json.dumps({**facts, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
