//! Project chores, one plain function each.
fn main() {}
