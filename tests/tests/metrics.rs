//! The metrics that brokers and consumers serve, docs/metrics.md, and the dashboard say the same.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use tests::cluster::{Cluster, ClusterOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const LIMIT: Duration = Duration::from_secs(120);
/// Labels which Prometheus gives to every series.
const GIVEN: [&str; 2] = ["instance", "job"];

/// What is known of a metric.
#[derive(Clone, Debug, PartialEq)]
struct Metric {
    kind: String,
    /// None if it has no series.
    labels: Option<BTreeSet<String>>,
}

type Metrics = BTreeMap<String, Metric>;

async fn served(address: &str) -> Metrics {
    let mut stream = tokio::net::TcpStream::connect(address.trim_start_matches("http://")).await.unwrap();
    stream.write_all(b"GET /debug/metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    parsed(answer.split_once("\r\n\r\n").unwrap().1)
}

fn parsed(text: &str) -> Metrics {
    let mut metrics = Metrics::new();
    for line in text.lines() {
        if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, kind) = typed.split_once(' ').unwrap();
            let metric = Metric { kind: kind.to_owned(), labels: None };
            assert!(metrics.insert(name.to_owned(), metric).is_none(), "{name} is there twice");
        } else if !line.starts_with('#') {
            let (series, _) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let names = labels.trim_end_matches('}').split("\",").filter(|label| !label.is_empty());
            let names = names.map(|label| label.split_once('=').unwrap().0.to_owned());
            let name = family(name, &metrics).unwrap();
            metrics.get_mut(name).unwrap().labels = Some(names.filter(|label| label != "le").collect());
        }
    }
    metrics
}

/// The metric which a series is of: those of histograms have suffixes.
fn family<'a>(name: &'a str, metrics: &Metrics) -> Option<&'a str> {
    let suffixes = ["_bucket", "_sum", "_count"];
    let of_histogram = suffixes.into_iter().filter_map(|suffix| name.strip_suffix(suffix));
    let histogram =
        of_histogram.into_iter().find(|name| metrics.get(*name).is_some_and(|m| m.kind == "histogram"));
    histogram.or_else(|| metrics.contains_key(name).then_some(name))
}

fn text_of(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    std::fs::read_to_string(root.join(path)).unwrap()
}

/// The documented metrics of a process.
fn documented(process: &str) -> Metrics {
    let text = text_of("docs/metrics.md");
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let mut metrics = Metrics::new();
    for row in rows {
        let [_, name, kind, labels, place, ..] = row.split('|').map(str::trim).collect::<Vec<_>>()[..] else {
            panic!("{row}");
        };
        assert!(["broker", "consumer", "both"].contains(&place), "{row}");
        if place == process || place == "both" {
            let labels = labels.split(", ").filter(|label| !label.is_empty()).map(str::to_owned).collect();
            let metric = Metric { kind: kind.to_owned(), labels: Some(labels) };
            assert!(metrics.insert(name.trim_matches('`').to_owned(), metric).is_none(), "{row}");
        }
    }
    metrics
}

fn compare(process: &str, served: &Metrics, documented: &Metrics) {
    let names = |metrics: &Metrics| metrics.keys().cloned().collect::<BTreeSet<_>>();
    let (served_names, documented_names) = (names(served), names(documented));
    let missing: Vec<_> = served_names.difference(&documented_names).collect();
    assert!(missing.is_empty(), "docs/metrics.md lacks these of a {process}: {missing:?}");
    let unknown: Vec<_> = documented_names.difference(&served_names).collect();
    assert!(unknown.is_empty(), "docs/metrics.md has these, which a {process} does not serve: {unknown:?}");
    for (name, served) in served {
        let documented = &documented[name];
        assert_eq!(served.kind, documented.kind, "{name} of a {process}");
        if served.labels.is_some() {
            assert_eq!(served.labels, documented.labels, "{name} of a {process}");
        }
    }
}

/// Every query of the dashboard.
fn queries() -> Vec<String> {
    let dashboard: serde_json::Value = serde_json::from_str(&text_of("deploy/grafana/courant.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

/// Words of a query, as names are made of them.
fn words(query: &str) -> impl Iterator<Item = &str> {
    query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// What stands between each pair of delimiters.
fn between<'a>(text: &'a str, open: &'a str, close: char) -> impl Iterator<Item = &'a str> {
    text.split(open).skip(1).map(move |rest| rest.split(close).next().unwrap_or_default())
}

fn check_query(query: &str, metrics: &Metrics) -> BTreeSet<String> {
    let is_ours = |word: &&str| {
        ["gazette_", "courant_", "grpc_server_", "grpc_client_", "process_"]
            .iter()
            .any(|prefix| word.starts_with(prefix))
    };
    let names: BTreeSet<_> = words(query)
        .filter(is_ours)
        .map(|word| {
            family(word, metrics).unwrap_or_else(|| panic!("nobody serves {word} of {query}")).to_owned()
        })
        .collect();
    assert!(!names.is_empty(), "{query}");
    let grouped = between(query, "by (", ')').flat_map(|labels| labels.split(", "));
    let selected = between(query, "{", '}')
        .flat_map(|labels| labels.split(','))
        .map(|label| words(label).next().unwrap());
    for label in grouped.chain(selected).filter(|label| *label != "le" && !GIVEN.contains(label)) {
        for name in &names {
            let has = metrics[name].labels.as_ref().is_some_and(|labels| labels.contains(label));
            assert!(has, "{name} has no label {label}, which {query} names");
        }
    }
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_served_is_documented_and_shown() {
    let options = ClusterOptions { summer_args: &["--consumer.prune-recovery-logs"], ..Default::default() };
    let mut cluster = Cluster::start(options).await.unwrap();
    cluster.start_summer(0).await.unwrap();
    cluster.apply_stream_sum().await.unwrap();
    let mut chunker = cluster.start_chunker(&["--chunker.streams=4", "--chunker.chunks=20"]).unwrap();
    let status = chunker.wait_exit(LIMIT).await.unwrap();
    assert!(status.success(), "{}", chunker.stderr_tail());

    let (broker, consumer) = (documented("broker"), documented("consumer"));
    compare("broker", &served(&cluster.broker_address()).await, &broker);
    compare("consumer", &served(cluster.summer_address(0)).await, &consumer);

    let all: Metrics = broker.into_iter().chain(consumer).collect();
    let shown: BTreeSet<String> = queries().iter().flat_map(|query| check_query(query, &all)).collect();
    let not_shown: Vec<_> = all.keys().filter(|name| !shown.contains(*name)).collect();
    assert_eq!(not_shown, ["process_virtual_memory_bytes"], "the dashboard shows everything else");
}

#[test]
fn queries_that_name_what_is_not_there_are_found() {
    let metrics = parsed(
        "# TYPE gazette_a counter\ngazette_a{x=\"1\",y=\"a,b\"} 5\n# TYPE gazette_h histogram\ngazette_h_bucket{le=\"1\"} 1\n",
    );
    assert_eq!(metrics["gazette_a"].labels, Some(["x".to_owned(), "y".to_owned()].into()));
    assert_eq!(metrics["gazette_h"].labels, Some(BTreeSet::new()));
    check_query("sum by (x, instance) (rate(gazette_a{y!=\"b\"}[5m]))", &metrics);
    check_query("histogram_quantile(0.9, sum by (le) (rate(gazette_h_bucket[5m])))", &metrics);
    for wrong in ["gazette_b", "sum by (z) (gazette_a)", "gazette_a{z=\"1\"}", "gazette_a_bucket", "1 + 1"] {
        let metrics = metrics.clone();
        std::panic::catch_unwind(move || check_query(wrong, &metrics)).expect_err(wrong);
    }
}
