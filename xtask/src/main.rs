//! Everything that builds, tests and measures kiwispray.
fn main() {}
