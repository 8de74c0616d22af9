//! The courant command line.
fn main() {}
