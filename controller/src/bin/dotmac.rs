//! `dotmac`: the operator's command line. It only starts what `cli` does.

use std::process::ExitCode;

fn main() -> ExitCode {
    dotmac_controller::cli::main()
}
