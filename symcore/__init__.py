"""The science: networks with and without parameter symmetries, their training, alignment and paths."""
