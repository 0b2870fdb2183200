"""Devices, processes, signals, memory, and the command line."""
