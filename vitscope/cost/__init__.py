"""RECORDS → NUMBERS: MACs, parameters, bytes, peak memory and scores of a graph. Never imports torch."""
