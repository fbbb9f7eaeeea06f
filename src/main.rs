//! Parse, install the rustls provider, run, exit code; nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    nodeprep::cli::main()
}
