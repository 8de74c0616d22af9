//! The guides to operation and storage and the files under deploy/ name only commands, options and variables that exist.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::manifests::{containers, manifest};
use tests::process::binary;

/// Our programs.
const PROGRAMS: [&str; 3] = ["courant", "summer", "chunker"];
/// Programs of others, whose options are theirs.
const OTHERS: &[&str] = &[
    "etcd",
    "etcdctl",
    "kubectl",
    "systemctl",
    "systemd-analyze",
    "useradd",
    "podman",
    "journalctl",
    "curl",
    "openssl",
    "cat",
    "tail",
];
/// Manifests of programs of others.
const FOREIGN_FILES: &[&str] = &["etcd.yaml", "minio.yaml"];
/// How our variables begin.
const PREFIXES: &[&str] = &["BROKER_", "CONSUMER_", "CHUNKER_", "ETCD_", "LOG_", "DEBUG_"];

/// What each command says of itself, by the words of the command line.
#[derive(Default)]
struct Helps(BTreeMap<Vec<String>, Option<String>>);

impl Helps {
    /// The help of a command; None if there is none.
    fn of(&mut self, words: &[&str]) -> Option<&str> {
        let key: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let help = self.0.entry(key).or_insert_with(|| {
            let mut command = Command::new(binary(words[0]));
            let output = command.args(&words[1..]).arg("--help").env_clear().output().unwrap();
            output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
        });
        help.as_deref()
    }

    /// The helps of all programs, one after the other.
    fn all(&mut self) -> String {
        let commands: [&[&str]; 14] = [
            &["courant", "serve"],
            &["courant", "journals", "list"],
            &["courant", "journals", "apply"],
            &["courant", "journals", "append"],
            &["courant", "journals", "read"],
            &["courant", "journals", "fragments"],
            &["courant", "journals", "reset-head"],
            &["courant", "journals", "prune"],
            &["courant", "journals", "suspend"],
            &["courant", "shards", "list"],
            &["courant", "shards", "apply"],
            &["courant", "shards", "unassign"],
            &["summer", "serve"],
            &["chunker", "run"],
        ];
        commands
            .map(|words| self.of(words).unwrap_or_else(|| panic!("{words:?} is no command")).to_owned())
            .concat()
    }
}

/// The guides, and all files under deploy/, by their paths.
fn texts() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut pending: Vec<PathBuf> =
        vec![root.join("docs/operations.md"), root.join("docs/storage.md"), root.join("deploy")];
    let mut texts = Vec::new();
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if !FOREIGN_FILES.iter().any(|name| path.ends_with(name)) {
            let name = path.strip_prefix(root).unwrap().display().to_string();
            texts.push((name, std::fs::read_to_string(&path).unwrap()));
        }
    }
    assert!(texts.len() > 10, "the files are there: {}", texts.len());
    texts
}

/// The parts of a line which may be words, without quotes, brackets and punctuation around them.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let is_separator = |c: char| c.is_whitespace() || "\"'`[]{}(),;|".contains(c);
    line.split(is_separator).map(|word| word.trim_end_matches(['.', ':'])).filter(|word| !word.is_empty())
}

/// The name of an option, such as `--broker.port` of `--broker.port=8080`.
fn option(word: &str) -> Option<&str> {
    let name = word.split('=').next()?;
    let rest = name.strip_prefix("--")?;
    rest.starts_with(|c: char| c.is_ascii_lowercase()).then_some(name)
}

/// The names of our variables in a line.
fn variables(line: &str) -> impl Iterator<Item = &str> {
    let is_name = |c: char| c.is_ascii_uppercase() || c == '_';
    line.split(move |c: char| !is_name(c)).filter(|word| {
        PREFIXES.iter().any(|prefix| word.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty()))
    })
}

/// Whether a help explains this option or variable, and no longer one alone.
fn explains(help: &str, name: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || "._-".contains(c));
    help.match_indices(name).any(|(at, _)| ends(&help[at + name.len()..]))
}

/// The words of a command line of ours: the program, and the commands after it.
fn command(line: &str) -> Option<Vec<&str>> {
    let mut words = line.trim().trim_start_matches("$ ").split_whitespace();
    let program = words.next().filter(|word| PROGRAMS.contains(word))?;
    let is_command =
        |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-');
    Some(std::iter::once(program).chain(words.take_while(is_command)).collect())
}

fn is_foreign(line: &str) -> bool {
    words(line).find(|word| !["$", "#", "RUN"].contains(word)).is_some_and(|first| OTHERS.contains(&first))
}

#[test]
fn what_the_guide_and_the_manifests_name_exists() {
    let mut helps = Helps::default();
    let all = helps.all();
    let mut findings = Vec::new();
    let mut seen = 0;
    for (path, text) in texts() {
        let text = text.replace("\\\n", " ");
        for line in text.lines().filter(|line| !is_foreign(line)) {
            let mut report = |what: &str| findings.push(format!("{path}: {what} in: {}", line.trim()));
            let own = command(line).filter(|words| path.ends_with(".md") && words.len() > 1);
            let help = match &own {
                None => Some(all.as_str()),
                Some(words) => helps.of(words),
            };
            let Some(help) = help else {
                report("no such command");
                continue;
            };
            for name in words(line).filter_map(option) {
                seen += 1;
                if !explains(help, name) {
                    report(&format!("no option {name}"));
                }
            }
            for name in variables(line) {
                seen += 1;
                if !explains(&all, &format!("[env: {name}")) {
                    report(&format!("no variable {name}"));
                }
            }
        }
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
    assert!(seen > 50, "options are recognised: {seen}");
}

/// Where the component for TLS has its files, and which there are: those of a secret of the type kubernetes.io/tls.
const TLS_FILES: (&str, [&str; 3]) = ("/etc/courant/tls", ["tls.crt", "tls.key", "ca.crt"]);

#[test]
fn what_the_component_for_tls_names_is_in_its_secrets_and_mounted() {
    let mut files = 0;
    for name in ["broker", "consumer", "apply", "chunker", "etcd"] {
        let workload = manifest(&format!("components/secure/{name}.yaml"));
        let volumes = workload["spec"]["template"]["spec"]["volumes"].as_array().unwrap();
        assert!(volumes.iter().any(|volume| volume["secret"]["secretName"] == "courant-tls"), "{name}");
        for container in containers(&workload) {
            let named = container.to_string();
            let mut used =
                named.split(TLS_FILES.0).skip(1).filter_map(|rest| rest.strip_prefix('/')).peekable();
            assert!(used.peek().is_some(), "{name}: a container has no TLS");
            for file in used {
                let is_known = TLS_FILES.1.iter().any(|known| file.starts_with(&format!("{known}\"")));
                assert!(is_known, "{name}: the secret has no file {file:.20}");
                files += 1;
            }
            let mounts = container["volumeMounts"].as_array().unwrap();
            assert!(
                mounts.iter().any(|mount| mount["mountPath"] == TLS_FILES.0),
                "{name}: it is not mounted"
            );
            for variable in container["env"].as_array().into_iter().flatten() {
                let secret = &variable["valueFrom"]["secretKeyRef"];
                let group =
                    variable["name"].as_str().unwrap().strip_suffix("_AUTH_KEYS").map(str::to_lowercase);
                assert_eq!(secret["key"].as_str(), group.as_deref(), "{name}: {variable}");
                assert!(group.is_none() || secret["name"] == "courant-keys", "{name}: {variable}");
            }
        }
    }
    assert!(files > 30, "files are recognised: {files}");
}

#[test]
fn options_and_variables_are_recognised() {
    let line = "- args: [run, --chunker.streams=1000, \"--broker.port 8080\"] # `BROKER_PORT`, $(BROKER_ID): -x --- --";
    assert_eq!(words(line).filter_map(option).collect::<Vec<_>>(), ["--chunker.streams", "--broker.port"]);
    assert_eq!(variables(line).collect::<Vec<_>>(), ["BROKER_PORT", "BROKER_ID"]);
    let help = "--broker.port <PORT> [env: BROKER_PORT=]";
    assert!(explains(help, "--broker.port") && explains(help, "[env: BROKER_PORT"));
    assert!(!explains(help, "--broker.por") && !explains(help, "[env: BROKER_POR"));
    assert_eq!(command("  $ courant journals list -l x"), Some(vec!["courant", "journals", "list"]));
    assert_eq!(command("courant: serving"), None);
    assert!(is_foreign("$ etcdctl get --prefix x") && !is_foreign("$ courant serve --etcd.address x"));
}
