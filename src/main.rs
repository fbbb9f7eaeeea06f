//! Parse, install the rustls provider, run, exit code; nothing else.
fn main() {}
