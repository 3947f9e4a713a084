//! The `weft` binary.

mod router;

fn main() {}
