#!/bin/sh
# Draws every figure again: runs the commands of README.md beside this script, as they stand there.
set -eu
cd "$(dirname "$0")/.."
awk '/^```/ { inside = !inside; next } inside' plots/README.md | sh -eu >/dev/null
