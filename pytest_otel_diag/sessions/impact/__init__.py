"""The impact of a fault: baseline, assessment, the wait for it, and recovery."""
