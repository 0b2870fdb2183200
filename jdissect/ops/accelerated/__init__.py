"""The counting kernels for GPUs and TPUs; their integers are those of `jdissect.ops`.

A kernel launch costs microseconds, and a loop over images or units launches one for
each. So all images of a step are counted at once, and loops over pixels run inside a
kernel.
"""
