"""The program that runs on the target: one process, one exported file, one runtime. Standard library and that runtime only."""
