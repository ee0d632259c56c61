//! The `baton` binary.

fn main() -> std::process::ExitCode {
    baton::memory::hold_little();
    baton::devnet::die_with_parent();
    baton::failpoints::arm();
    baton::cli::main().into()
}
