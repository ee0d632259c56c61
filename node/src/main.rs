//! The `baton` binary.

fn main() -> std::process::ExitCode {
    baton::memory::share_arenas();
    baton::devnet::die_with_parent();
    baton::failpoints::arm();
    baton::cli::main().into()
}
