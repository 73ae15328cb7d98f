"""One Python runtime in a process of its own, behind the protocol of ../harness/child.py.

    python.py RUNTIME MODEL THREADS        RUNTIME: onnxruntime, openvino, torch-int8, deepsparse

Nothing is imported but what the runtime needs: a second OpenMP in the process slows some of them several times over. Arrays are
made before the clock starts; texts of different lengths are padded to the longest, with a mask, which is how each of these
runtimes takes them.
"""
import atexit, json, os, shutil, sys, tempfile, time, traceback

RUNTIME, MODEL, THREADS = sys.argv[1], sys.argv[2], int(sys.argv[3])
os.environ["NM_DISABLE_ANALYTICS"] = "1"  # DeepSparse calls home otherwise
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what the libraries print is no answer

import numpy as np


def onnx_runtime():
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = THREADS, 1, 3
    session = onnxruntime.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])

    def prepare(ids, mask):
        return lambda: session.run(None, {"input_ids": ids, "attention_mask": mask})[0]

    return onnxruntime.__version__, prepare


def openvino():
    import openvino
    core = openvino.Core()
    model = core.read_model(MODEL)
    settings = {"INFERENCE_NUM_THREADS": THREADS, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False}

    def prepare(ids, mask):
        fixed = model.clone()  # compiled for this shape: faster than dynamic shapes
        fixed.reshape({port.get_any_name(): list(ids.shape) for port in fixed.inputs})
        request = core.compile_model(fixed, "CPU", settings).create_infer_request()
        feed = {"input_ids": ids, "attention_mask": mask}
        return lambda: request.infer(feed, share_inputs=True, share_outputs=True)[0]

    return openvino.__version__, prepare


def torch_int8():
    import torch
    from transformers import DistilBertForSequenceClassification
    torch.set_num_threads(THREADS)
    torch.set_num_interop_threads(1)
    model = DistilBertForSequenceClassification.from_pretrained(MODEL, dtype=torch.float32).eval()
    model = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)

    def prepare(ids, mask):
        ids, mask = torch.from_numpy(ids), torch.from_numpy(mask)

        def run():
            with torch.inference_mode():
                return model(input_ids=ids, attention_mask=mask).logits.numpy()
        return run

    return torch.__version__, prepare


def deepsparse():
    import deepsparse
    # The engine rewrites the file that it is given, to fix its shapes: it gets a copy of its own.
    folder = tempfile.mkdtemp(prefix="peers-deepsparse-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)

    def prepare(ids, mask):
        copy = shutil.copy(MODEL, os.path.join(folder, "model.onnx"))
        shape = list(ids.shape)
        engine = deepsparse.Engine(model=copy, batch_size=shape[0], num_cores=THREADS, num_streams=1, input_shapes=[shape, shape])
        if engine.fraction_of_supported_ops < 1:
            print(f"DeepSparse itself runs only {engine.fraction_of_supported_ops:.0%} of the operations", file=sys.stderr)
        return lambda: engine.run([ids, mask])[0]

    return deepsparse.__version__, prepare


def say(answer):
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def arrays(texts):
    """Ids and mask, int64 [texts, longest]."""
    ids = np.zeros((len(texts), max(map(len, texts))), np.int64)
    mask = np.zeros_like(ids)
    for row, text in enumerate(texts):
        ids[row, : len(text)], mask[row, : len(text)] = text, 1
    return ids, mask


def main():
    runtime = {"onnxruntime": onnx_runtime, "openvino": openvino, "torch-int8": torch_int8, "deepsparse": deepsparse}[RUNTIME]
    version, prepare = runtime()
    say({"ready": True, "version": version})
    known, run, clock = None, None, time.perf_counter
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if known != request["texts"]:  # a shape is compiled once, not at every turn
                run = None
                known, run = request["texts"], prepare(*arrays(request["texts"]))
            times, spent = [], 0.0
            for call in range(request["warm"] + request["calls"]):
                start = clock()
                logits = run()
                seconds = clock() - start
                if call >= request["warm"]:
                    times.append(seconds)
                    spent += seconds
                    if spent > request["budget"]:
                        break
            say({"seconds": times, "logits": np.asarray(logits).tolist()})
        except Exception as error:
            traceback.print_exc()
            say({"error": f"{type(error).__name__}: {error}"[:300]})


if __name__ == "__main__":
    main()
