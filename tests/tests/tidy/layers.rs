//! A crate depends only on crates of lower levels, and some libraries have one door each.

use super::{assert_none, files};

/// Level of each crate (ARCHITECTURE.md, "Layers").
const LEVELS: &[(&str, u8)] = &[
    ("proto", 0),
    ("runtime", 1),
    ("auth", 1),
    ("message", 1),
    ("fragment", 1),
    ("store-servers", 1),
    ("stores", 2),
    ("keyspace", 2),
    ("client", 3),
    ("allocator", 3),
    ("broker", 4),
    ("recoverylog", 4),
    ("consumer", 5),
    ("store-rocksdb", 6),
    ("store-postgres", 6),
    ("store-sqlite", 7),
    ("cli", 7),
    ("testkit", 7),
    ("stream-sum", 8),
    ("word-count", 8),
    ("bike-share", 8),
    ("visits", 8),
    ("tests", 9),
];

/// Libraries which only one crate may name.
const DOORS: &[(&str, &[&str])] = &[
    ("keyspace", &["etcd-client"]),
    ("stores", &["object_store"]),
    ("store-rocksdb", &["rocksdb", "librocksdb-sys"]),
    ("store-sqlite", &["rusqlite"]),
    ("store-postgres", &["tokio-postgres"]),
];

struct Manifest {
    path: String,
    name: String,
    dependencies: Vec<String>,
}

fn manifests() -> Vec<Manifest> {
    let crates = files(&["Cargo.toml"]).into_iter().filter(|(path, _)| path != "Cargo.toml");
    crates
        .map(|(path, text)| {
            let mut section = String::new();
            let (mut name, mut dependencies) = (String::new(), Vec::new());
            for line in text.lines().map(str::trim) {
                if let Some(header) = line.strip_prefix('[') {
                    section = header.trim_end_matches(']').to_owned();
                } else if let Some((key, value)) = line.split_once('=') {
                    let key = key.trim().trim_end_matches(".workspace");
                    if section == "package" && key == "name" {
                        name = value.trim().trim_matches('"').to_owned();
                    } else if section == "dependencies" {
                        dependencies.push(key.to_owned());
                    }
                }
            }
            Manifest { path, name, dependencies }
        })
        .collect()
}

fn level(name: &str) -> Option<u8> {
    LEVELS.iter().find(|(known, _)| *known == name).map(|(_, level)| *level)
}

#[test]
fn crates_depend_only_on_lower_levels() {
    let mut findings = Vec::new();
    for manifest in manifests() {
        let Some(own) = level(&manifest.name) else {
            findings.push(format!("{}: crate {} has no level", manifest.path, manifest.name));
            continue;
        };
        for dependency in &manifest.dependencies {
            // Level 1 crates may use the seams of `runtime`, which is the lowest of them.
            if let Some(other) = level(dependency)
                && other >= own
                && !(own == 1 && dependency == "runtime")
            {
                findings.push(format!(
                    "{}: {} (level {own}) depends on {dependency} (level {other})",
                    manifest.path, manifest.name
                ));
            }
        }
    }
    assert_none("a crate depends only on lower levels", findings);
}

#[test]
fn the_consumer_does_not_know_the_broker() {
    let consumer = manifests().into_iter().find(|manifest| manifest.name == "consumer").expect("it exists");
    assert!(!consumer.dependencies.iter().any(|name| name == "broker"));
}

#[test]
fn the_broker_knows_bytes_and_not_messages() {
    let broker = manifests().into_iter().find(|manifest| manifest.name == "broker").expect("it exists");
    assert!(!broker.dependencies.iter().any(|name| name == "message"));
}

#[test]
fn each_door_has_one_keeper() {
    let mut findings = Vec::new();
    for manifest in manifests() {
        for (keeper, libraries) in DOORS {
            for library in *libraries {
                if manifest.name != *keeper && manifest.dependencies.iter().any(|name| name == library) {
                    findings.push(format!("{}: only {keeper} may name {library}", manifest.path));
                }
            }
        }
    }
    assert_none("a library with a door has one keeper", findings);
}
