"""A STAND-IN for ExecuTorch's executor_runner: it runs nothing, prints what that prints, and gives a trace made by the tests.

Pushed to the fake Android device. VITSCOPE_TRACE names the trace that it writes for --etdump_path; without it, the stand-in is
a build without an event tracer, whose gflags know no such flag. Words follow executor_runner.cpp; its times are made up.
"""

import os
import re
import shutil
import sys

EACH_MS = 2.0
given = dict(word.lstrip("-").partition("=")[::2] for word in sys.argv[1:])
known = {"model_path", "num_executions", "cpu_threads"} | ({"etdump_path"} if "VITSCOPE_TRACE" in os.environ else set())
for name in sorted(set(given) - known):
    print(f"ERROR: unknown command line flag '{name}'", file=sys.stderr)
if set(given) - known:
    sys.exit(1)
if not re.fullmatch(r"[1-9]\d*", given["num_executions"]) or not os.path.isfile(given["model_path"]):
    sys.exit("Failed to parse model file")
count = int(given["num_executions"])
print("I 00:00:00.000525 executorch:executor_runner.cpp:600] Model loaded in 1.500000 ms.")
for number in range(1, count + 1):
    print(f"I 00:00:00.000525 executorch:executor_runner.cpp:700] Iteration {number} of {count}: {EACH_MS:f} ms")
whole = f"Model executed successfully {count} time(s) in {count * EACH_MS:f} ms."
print(f"I 00:00:00.000525 executorch:executor_runner.cpp:710] {whole}")
if "VITSCOPE_TRACE" in os.environ:
    target = given.get("etdump_path", "model.etdump")
    shutil.copyfile(os.environ["VITSCOPE_TRACE"], target)
    print(f"I 00:00:00.000525 executorch:executor_runner.cpp:240] ETDump written to file '{target}'.")
