//! Writes streams of chunks, and verifies the sum of each.

fn main() -> std::process::ExitCode {
    stream_sum::chunker::main()
}
