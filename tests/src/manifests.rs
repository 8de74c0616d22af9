//! The manifests of Kubernetes under deploy/, as far as tests look into them.

use std::path::Path;

use serde_json::Value;

/// Where the component for TLS has its files in a container.
const TLS_DIR: &str = "/etc/courant/tls/";

/// The first object of a manifest, by its path under deploy/kubernetes.
///
/// # Panics
/// If there is none: a test fails.
pub fn manifest(path: &str) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes");
    let text = std::fs::read_to_string(root.join(path)).expect("the manifest is there");
    serde_yaml_ng::from_str(&text).expect("the manifest is YAML")
}

/// The containers of a workload, init containers first.
pub fn containers(workload: &Value) -> Vec<&Value> {
    let pod = &workload["spec"]["template"]["spec"];
    let of = |kind: &str| pod[kind].as_array().into_iter().flatten();
    of("initContainers").chain(of("containers")).collect()
}

/// The environment of a workload's container as a manifest gives it, without what it has of its pod. Values are made into
/// those of a test by `replace`; one which is a secret is given as `secret:KEY`, and a file of TLS as `file:NAME`.
///
/// # Panics
/// If there is no such container: a test fails.
pub fn environment(
    workload: &Value,
    container: &str,
    replace: impl Fn(&str) -> String,
) -> Vec<(String, String)> {
    let all = containers(workload);
    let container = all.into_iter().find(|found| found["name"] == container).expect("the container is there");
    let variables = container["env"].as_array().expect("it has an environment");
    let variables = variables.iter().filter_map(|variable| {
        let secret = variable["valueFrom"]["secretKeyRef"]["key"].as_str();
        let value = match (variable["value"].as_str(), secret) {
            (Some(value), _) => value.replace(TLS_DIR, "file:"),
            (None, Some(key)) => format!("secret:{key}"),
            (None, None) => return None,
        };
        Some((variable["name"].as_str()?.to_owned(), replace(&value)))
    });
    variables.collect()
}
