//! chunker and summer: the proof that sums are exact.
