"""Figures: data that was decided elsewhere, drawn without a screen and with the same bytes every time."""
