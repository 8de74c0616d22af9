//! Names for processes that were not given one.

use crate::Entropy;

const FIRST: &[&str] = &[
    "able", "amber", "apt", "bold", "brave", "brisk", "calm", "civil", "clear", "coral", "crisp", "deft",
    "eager", "early", "fair", "fine", "fleet", "fond", "frank", "fresh", "glad", "grand", "hale", "handy",
    "happy", "hardy", "ideal", "jolly", "keen", "kind", "lively", "loyal", "lucid", "merry", "mild", "neat",
    "nimble", "noble", "open", "placid", "proud", "quick", "quiet", "rapid", "ready", "robust", "rosy",
    "sage", "sharp", "smart", "solid", "sound", "stable", "steady", "sunny", "swift", "tidy", "true",
    "vivid", "warm", "wise", "witty", "young", "zesty",
];

const SECOND: &[&str] = &[
    "adder", "badger", "beaver", "bison", "cobra", "condor", "crane", "dingo", "dove", "eagle", "egret",
    "falcon", "ferret", "finch", "fox", "gecko", "gibbon", "goose", "grouse", "hare", "hawk", "heron",
    "hornet", "ibex", "jackal", "jaguar", "kestrel", "kiwi", "lark", "lemur", "linnet", "lynx", "magpie",
    "marten", "mole", "moose", "newt", "ocelot", "orca", "otter", "owl", "panda", "parrot", "pelican",
    "pigeon", "plover", "puffin", "quail", "raven", "robin", "salmon", "seal", "shrew", "skink", "snipe",
    "stoat", "stork", "swan", "tapir", "tern", "toad", "trout", "vole", "wombat",
];

/// Two words with a dash between them, of 7 characters or more: a valid suffix of a process id.
pub fn pet_name(entropy: &Entropy) -> String {
    let pick = |words: &[&'static str]| words[entropy.below(words.len() as u64) as usize];
    format!("{}-{}", pick(FIRST), pick(SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_two_lower_case_words() {
        let entropy = Entropy::seeded(1);
        for _ in 0..200 {
            let name = pet_name(&entropy);
            assert!(name.len() >= 4 && name.bytes().all(|b| b == b'-' || b.is_ascii_lowercase()), "{name}");
        }
    }
}
