"""A STAND-IN for LiteRT's benchmark_model: it really runs the model through LiteRT, and prints what benchmark_model prints.

Pushed to the fake Android device by the tests. Its output follows benchmark_model.cc and stats_calculator.cc; the per-operation
times of its profile are the measured mean divided evenly, for LiteRT's Python interpreter tells none.
VITSCOPE_STANDIN makes it misbehave: crash, garbage, hang, fail, old (the format before 2020).
"""

import os
import signal
import sys
import time

import numpy as np
from ai_edge_litert.interpreter import Interpreter

flags = dict(word.lstrip("-").split("=", 1) for word in sys.argv[1:])
mode = os.environ.get("VITSCOPE_STANDIN", "")


def report(times):
    micro = [int(seconds * 1e6) for seconds in times]
    text = f"count={len(micro)} "
    if len(micro) == 1:
        return text + f"curr={micro[0]}"
    mean = sum(micro) / len(micro)
    deviation = (sum((value - mean) ** 2 for value in micro) / len(micro)) ** 0.5
    return text + (
        f"first={micro[0]} curr={micro[-1]} min={min(micro)} max={max(micro)} avg={mean:.6g} std={deviation:.0f}"
    )


def run(interpreter, runs, seconds):
    times, began = [], time.perf_counter()
    while len(times) < runs or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        interpreter.invoke()
        times.append(max(time.perf_counter() - start, 1e-6))
    return times


print("INFO: STARTING!")
began = time.perf_counter()
interpreter = Interpreter(flags["graph"], num_threads=int(flags.get("num_threads", 1)))
interpreter.allocate_tensors()
for entry in interpreter.get_input_details():
    interpreter.set_tensor(entry["index"], np.random.default_rng(0).random(entry["shape"], dtype=np.float32))
init = time.perf_counter() - began
if mode == "crash":
    os.kill(os.getpid(), signal.SIGSEGV)
if mode == "hang":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    time.sleep(600)
if mode == "garbage":
    print("\x00\x17 lorem ipsum avg=NaN")
    sys.exit(0)
if mode == "fail":
    print("ERROR: Didn't find op for builtin opcode 'CONV_2D' version '6'")
    sys.exit(1)
warm = run(interpreter, int(flags.get("warmup_runs", 1)), float(flags.get("warmup_min_secs", 0.5))) or [0.0]
print(f"INFO: {report(warm)}\n")
regular = run(interpreter, int(flags.get("num_runs", 50)), float(flags.get("min_secs", 1.0)))
print(f"INFO: {report(regular)}\n")
mean_us = sum(int(seconds * 1e6) for seconds in regular) / len(regular)
if mode == "old":
    print(
        f"Average inference timings in us: Warmup: {warm[0] * 1e6:.6g}, Init: {init * 1e6:.0f}, Inference: {mean_us:.6g}"
    )
else:
    print(
        f"INFO: Inference timings in us: Init: {init * 1e6:.0f}, First inference: {warm[0] * 1e6:.0f}, "
        f"Warmup (avg): {sum(warm) / len(warm) * 1e6:.6g}, Inference (avg): {mean_us:.6g}"
    )
if flags.get("enable_op_profiling") == "true":
    ops = interpreter._get_ops_details()
    names = {entry["index"]: entry["name"] for entry in interpreter.get_tensor_details()}
    share = mean_us / len(ops) / 1000
    with open(flags["op_profiling_output_file"], "w") as file:
        file.write("Profiling Info for Benchmark Initialization:\n\n")
        file.write("Operator-wise Profiling Info for Regular Benchmark Runs:\n")
        file.write("============================== Run Order ==============================\n")
        file.write("node type, first, avg_ms, %, cdf%, mem KB, times called, name\n")
        for number, op in enumerate(ops):
            name = "\t ".join(names.get(int(index), "") for index in op["outputs"])
            percent = 100 / len(ops)
            file.write(
                f"{op['op_name']}, {share:g}, {share:g}, {percent:g}%, {percent * (number + 1):g}%, 0, 1, "
                f"[{name}]:{op['index']}\n"
            )
        file.write("\n============================== Top by Computation Time ==============================\n")
