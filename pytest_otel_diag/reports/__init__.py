"""Renderings of a run: HTML, Markdown, JSON, text and attachments."""
