//! Compiles the protos and links libtorch.
fn main() {}
