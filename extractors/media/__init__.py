"""Decoding: the frames and the waveform of a clip, on one clock."""
