"""Calibration data: stereotype pairs and general text.

`roles.yaml` says which data set may be used for what. The stage proves that no sentence of a gate
set is in the calibration data.
"""
