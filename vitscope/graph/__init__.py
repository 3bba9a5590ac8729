"""MODULE → RECORDS: what a network computes, as frozen, printable records."""
