//! The monitor process of ZetaKV.
fn main() {}
