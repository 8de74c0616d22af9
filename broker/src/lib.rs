//! The journal service: append, read, list, apply, fragments.
