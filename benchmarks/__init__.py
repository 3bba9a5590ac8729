"""What vitscope is measured by. `python -m benchmarks` runs it all and writes results.md."""
