//! The `baton` binary.

fn main() -> std::process::ExitCode {
    // Armed from the environment; does not exist in release builds.
    #[cfg(feature = "failpoints")]
    let _failpoints = fail::FailScenario::setup();
    baton::cli::main().into()
}
