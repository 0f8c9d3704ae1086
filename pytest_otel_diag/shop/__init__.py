"""The Astronomy Shop as a discrete-event simulation: requests queue, faults act where the real code does."""
