"""The audio stage: log F0 or zero-crossing rate, MFCC and chroma."""
