"""Calibration data: stereotype pairs and general text, who may be used for what, and the proof that no gate set leaks in."""
