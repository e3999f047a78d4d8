"""The GPU kernels behind `operations`. Only a GPU's own module may import these files, for Triton comes with it."""
