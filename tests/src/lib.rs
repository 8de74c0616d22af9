//! Black-box, interop and tidy tests over real processes.
