"""Figures of the page, drawn by plotly."""
