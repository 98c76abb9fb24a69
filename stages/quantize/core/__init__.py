"""The arithmetic of Fair-GPTQ: tensors in, tensors out. The table of symbols stands in `stages.quantize`."""
