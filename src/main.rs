//! Parse, run, exit code.

fn main() -> std::process::ExitCode {
    kiwispray::cli::main()
}
