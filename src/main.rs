//! The `palimpsest` program.
fn main() {}
