"""One self-contained HTML file per run: opens from disk, needs no network, prints well."""

from lineside.core.report.render import render, write_explanation, write_report

__all__ = ["render", "write_explanation", "write_report"]
