"""Calibration data: stereotype pairs and general text.

The manifest of fetch and `roles.yaml` say which data set may be used for what. The stage proves
that no sentence of a gate set is in the calibration data.
"""
