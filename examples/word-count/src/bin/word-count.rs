//! Counts n-grams of texts, exactly once, and serves the counts.

use word_count::{WordCount, WordCountArgs};

fn main() -> std::process::ExitCode {
    consumer::run_with(WordCount::NAME, |args: WordCountArgs| Ok(WordCount::of_args(args)))
}
