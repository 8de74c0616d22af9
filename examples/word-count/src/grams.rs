//! N-grams of a text. Pure.

use std::collections::VecDeque;

/// Stands for what is before the first word.
const START: &str = "START";
/// Stands for what is behind the last word.
const END: &str = "END";

/// The runs of `n` words of a text, in order. Words are runs of letters; a run of them has single spaces between them. The
/// first run begins before the first word, the last one is wholly behind the last.
pub fn n_grams(text: &str, n: usize) -> impl Iterator<Item = String> {
    let words = text.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty());
    let mut window: VecDeque<&str> = std::iter::repeat_n(START, n).collect();
    words.chain(std::iter::repeat_n(END, n)).map(move |word| {
        window.pop_front();
        window.push_back(word);
        window.make_contiguous().join(" ")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, n: usize, expected: &[&str]) {
        assert_eq!(n_grams(text, n).collect::<Vec<_>>(), expected, "{text:?} by {n}");
    }

    #[test]
    fn words_are_runs_of_letters() {
        check("how now, brown-cow!", 1, &["how", "now", "brown", "cow", "END"]);
        check("füße 42 été don't", 1, &["füße", "été", "don", "t", "END"]);
        check("", 1, &["END"]);
        check(" \n 1 2 3", 1, &["END"]);
    }

    #[test]
    fn runs_begin_before_the_text_and_end_behind_it() {
        check("how now", 2, &["START how", "how now", "now END", "END END"]);
        check("how", 3, &["START START how", "START how END", "how END END", "END END END"]);
        check("", 2, &["START END", "END END"]);
    }
}
