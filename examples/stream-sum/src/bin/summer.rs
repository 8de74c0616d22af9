//! Sums streams of chunks, exactly once.

fn main() -> std::process::ExitCode {
    consumer::run(stream_sum::Summer::default())
}
