//! The house's rules, held by a test: layers, sizes, purity of state machines and banned words.
//!
//! Each rule reads the repository as text; a failure names file, line and rule. A rule changes only together with
//! ARCHITECTURE.md, in one commit that says why.

mod layers;
mod purity;
mod sizes;
mod words;

use std::path::{Path, PathBuf};

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root").to_owned()
}

/// Every file below the root with one of the extensions, as (path relative to the root, text), in a fixed order.
fn files(extensions: &[&str]) -> Vec<(String, String)> {
    let root = root();
    let mut found = Vec::new();
    let mut pending = vec![root.clone()];
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(&dir).expect("a directory of the repository is readable") {
            let path = entry.expect("an entry is readable").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            if path.is_dir() {
                if !matches!(name.as_str(), "target" | ".git" | ".cargo" | "courant-data") {
                    pending.push(path);
                }
            } else if extensions.iter().any(|extension| name.ends_with(extension)) {
                let relative = path.strip_prefix(&root).expect("below the root").display().to_string();
                found.push((relative, std::fs::read_to_string(&path).expect("a text file")));
            }
        }
    }
    found.sort();
    assert!(found.len() > 3, "the walk must find the repository's files");
    found
}

/// Rust files of the product: neither tests nor benches.
fn product_files() -> Vec<(String, String)> {
    let all = files(&[".rs"]);
    let test_modules: Vec<String> = all.iter().flat_map(|(path, text)| test_modules(path, text)).collect();
    let is_product = |path: &str| {
        let stem = path.trim_end_matches(".rs");
        let within = |module: &String| {
            stem == module || stem.strip_prefix(module.as_str()).is_some_and(|rest| rest.starts_with('/'))
        };
        !is_test(path) && !test_modules.iter().any(within)
    };
    all.into_iter().filter(|(path, _)| is_product(path)).collect()
}

/// True of files in folders that only tests and benches compile.
fn is_test(path: &str) -> bool {
    path.split('/').any(|part| matches!(part, "tests" | "benches" | "tests.rs"))
}

/// Modules that the file declares for tests alone (`#[cfg(test)] mod name;`, or behind a feature for tests), as paths
/// without extension.
fn test_modules(path: &str, text: &str) -> Vec<String> {
    let stem = path.trim_end_matches(".rs");
    let dir = match stem.rsplit_once('/') {
        Some((dir, "lib" | "main" | "mod")) => dir,
        _ => stem,
    };
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let declared = lines.windows(2).filter(|pair| pair[0].starts_with("#[cfg(") && pair[0].contains("test"));
    let names = declared.filter_map(|pair| {
        let declaration = pair[1].trim_start_matches("pub(crate) ").trim_start_matches("pub ");
        declaration.strip_prefix("mod ")?.strip_suffix(';')
    });
    names.map(|name| format!("{dir}/{name}")).collect()
}

/// Fails with every finding at once.
fn assert_none(rule: &str, findings: Vec<String>) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}
