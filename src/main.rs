//! The `shunt` program: start, stop and exit code.

fn main() {}
