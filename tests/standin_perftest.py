"""A STAND-IN for onnxruntime_perf_test: it really runs the model through ONNX Runtime, and writes what perf_test writes.

Pushed to the fake Android device by the tests. Result file and words follow performance_runner.{h,cc}; the trace is
ONNX Runtime's own.
"""

import getopt
import shutil
import sys
import time

import numpy as np
import onnxruntime

options, (model, results) = getopt.getopt(sys.argv[1:], "e:m:r:x:y:o:p:I")
given = dict(options)
settings = onnxruntime.SessionOptions()
settings.intra_op_num_threads = int(given["-x"])
if "-p" in given:
    settings.enable_profiling, settings.profile_file_prefix = True, given["-p"]
began = time.perf_counter()
session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
print(f"Session creation time cost: {time.perf_counter() - began:.6g} s")
feed = {entry.name: np.zeros(entry.shape, np.float32) for entry in session.get_inputs()}
session.run(None, feed)
with open(results, "a") as file:
    for run in range(int(given["-r"])):
        start = time.perf_counter()
        session.run(None, feed)
        file.write(f"tiny,{max(time.perf_counter() - start, 1e-7):.6g},91336704,62,{run}\n")
if "-p" in given:
    written = session.end_profiling()
    if not written.startswith(given["-p"]):
        shutil.move(written, given["-p"] + ".json")
print("Average inference time cost total: 1.0 ms")
