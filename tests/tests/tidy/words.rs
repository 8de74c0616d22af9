//! Words that must not stand in the repository, and shapes of code that the house does without.

use super::{assert_none, files, is_test, product_files};

/// Lines of Rust code with comments cut off, as (path, line number, text).
fn code(files: Vec<(String, String)>) -> Vec<(String, usize, String)> {
    let mut lines = Vec::new();
    for (path, text) in files {
        for (number, line) in text.lines().enumerate() {
            let line = line.split("//").next().unwrap_or_default();
            lines.push((path.clone(), number + 1, line.to_owned()));
        }
    }
    lines
}

fn find(lines: Vec<(String, usize, String)>, bad: impl Fn(&str) -> bool) -> Vec<String> {
    let found =
        lines.into_iter().filter(|(path, _, line)| !path.starts_with("tests/tests/tidy/") && bad(line));
    found.map(|(path, number, line)| format!("{path}:{number}: {}", line.trim())).collect()
}

#[test]
fn nothing_is_left_unfinished_or_silenced() {
    let bad = ["todo!(", "unimplemented!(", "#[ignore", "dbg!(", "allow(clippy::too_many_lines"];
    let mut findings = find(code(files(&[".rs"])), |line| bad.iter().any(|word| line.contains(word)));
    // Helpers that several test programs share may be used by only some of them.
    findings.extend(find(code(product_files()), |line| line.contains("allow(dead_code")));
    assert_none("nothing is left unfinished or silenced", findings);
}

#[test]
fn product_code_does_not_unwrap() {
    let mut findings = Vec::new();
    for (path, text) in product_files() {
        let product = text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
        findings.extend(find(code(vec![(path, product)]), |line| line.contains(".unwrap()")));
    }
    assert_none("outside tests, `expect` says why it holds", findings);
}

#[test]
fn every_select_is_biased() {
    let mut findings = Vec::new();
    for (path, text) in files(&[".rs"]) {
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let opens = line.contains("select! {") && !line.trim_start().starts_with("//");
            if opens && !path.starts_with("tests/tests/tidy/") {
                let next = lines[number + 1..]
                    .iter()
                    .find(|line| !line.trim().is_empty() && !line.trim_start().starts_with("//"));
                if next.is_none_or(|next| next.trim() != "biased;") {
                    findings.push(format!("{path}:{}: {}", number + 1, line.trim()));
                }
            }
        }
    }
    assert_none("every select! starts with `biased;`", findings);
}

#[test]
fn tests_do_not_sleep() {
    let tests =
        files(&[".rs"]).into_iter().filter(|(path, _)| is_test(path) || path.starts_with("tests/")).collect();
    let findings = find(code(tests), |line| line.contains("thread::sleep(") || line.contains("time::sleep("));
    assert_none("tests wait for conditions, not for a time", findings);
}

#[test]
fn the_repository_stands_alone() {
    let bad = ["/work/", "../shared", "/root/.", "proxy.golang.org"];
    let mut findings = Vec::new();
    for (path, text) in
        files(&[".rs", ".md", ".toml", ".sh", ".yaml", ".yml", ".proto", "Makefile", ".cc", ".h", ".go"])
    {
        if path.starts_with("tests/tests/tidy/") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            if bad.iter().any(|word| line.contains(word)) {
                findings.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert_none("no path of the machine it was written on", findings);
}
