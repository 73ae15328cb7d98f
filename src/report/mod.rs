//! What a run says at its end: statistics, latencies, the machine, the table.
