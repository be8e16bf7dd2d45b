//! See the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    catalog_sync::cli::main()
}
