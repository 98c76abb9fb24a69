"""The stages of the pipeline, one folder each, in the order of the data: fetch, calibrate,
quantize, evaluate, gate, report, register.
"""
