"""The analyzer's part of a session: loading, running, metering and limits."""
