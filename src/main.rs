//! metrika-gate.
fn main() {}
