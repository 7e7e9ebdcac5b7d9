"""The makers of fakes that the detector is trained on and judged by."""
