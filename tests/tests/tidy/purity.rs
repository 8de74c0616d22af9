//! Protocol logic is pure: the listed files do no I/O, read no clock and know no runtime.

use super::{assert_none, files, root};

/// State machines and formats that take events and time as arguments and give effects back.
const PURE: &[&str] = &[];

/// What a pure file must not name.
const IMPURE: &[&str] = &["async ", ".await", "tokio", "std::fs", "std::net", "now()", "thread::", "tracing::"];

#[test]
fn listed_files_exist() {
    let missing = PURE.iter().filter(|path| !root().join(path).exists());
    assert_none("a listed file exists", missing.map(|path| (*path).to_owned()).collect());
    assert!(PURE.len() >= 10, "the list names the state machines");
}

#[test]
fn state_machines_are_pure() {
    let mut findings = Vec::new();
    for (path, text) in files(&[".rs"]) {
        if !PURE.contains(&path.as_str()) {
            continue;
        }
        let product = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in product.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if let Some(word) = IMPURE.iter().find(|word| code.contains(**word)) {
                findings.push(format!("{path}:{}: `{}` in a pure file", number + 1, word.trim()));
            }
        }
    }
    assert_none("a listed file is pure", findings);
}
