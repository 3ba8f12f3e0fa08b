//! The binary: everything else is in the library.

fn main() -> std::process::ExitCode {
    let code = superserve::run(std::env::args_os().collect());
    std::process::ExitCode::from(u8::try_from(code).unwrap_or(1))
}
