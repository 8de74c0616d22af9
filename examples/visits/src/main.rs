//! The application as a program.

fn main() -> std::process::ExitCode {
    consumer::run(visits::Visits)
}
