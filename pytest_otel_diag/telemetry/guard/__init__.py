"""The guard: which SQL an analyzer may run."""
