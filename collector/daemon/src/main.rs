//! emberd.
fn main() {}
