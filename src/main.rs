use std::process::ExitCode;

fn main() -> ExitCode {
    audiohook_collector::run()
}
