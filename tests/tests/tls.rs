//! TLS between real processes: all that a cluster does, certificates replaced under way, and whoever is not let in.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::path::PathBuf;
use std::time::Duration;

use runtime::{Clock, TaskGroup};
use tempfile::TempDir;
use tests::authority::{self, Authority, replace};
use tests::fleet::free_port;
use tests::fleet::specs::{Copies, raw_journals, stream_sum_journals, stream_sum_shards};
use tests::load::Load;
use tests::manifests::{environment, manifest};
use tests::process::{Launch, Process, binary};

/// Longest wait for what the processes do next.
const LIMIT: Duration = Duration::from_secs(120);
/// Names in the certificates of servers.
const NODE: &[&str] = &["127.0.0.1", "localhost"];

/// A directory with certificates, and the processes which use them.
struct Site {
    dir: TempDir,
    tasks: TaskGroup,
    clock: Clock,
}

impl Site {
    fn new() -> Site {
        let dir = TempDir::with_prefix("courant-tls-").unwrap();
        Site { dir, tasks: TaskGroup::new("site"), clock: Clock::system() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, content: &str) -> String {
        replace(&self.path(name), content).unwrap();
        self.path(name).display().to_string()
    }

    /// Certificates of `authority` for every process.
    fn issue(&self, authority: &Authority) {
        authority.issue(self.dir.path(), "node", NODE).unwrap();
        authority.issue(self.dir.path(), "user", &["user"]).unwrap();
    }

    /// The three options of TLS which begin with `group`: the certificate of `who`, its key, and the trusted authority.
    fn tls(&self, group: &str, who: &str, ca: &str) -> Vec<String> {
        authority::options(self.dir.path(), group, who, ca)
    }

    fn start(&self, name: &str, program: PathBuf, args: &[&[String]]) -> Process {
        self.start_in(name, program, args, &[])
    }

    /// With these variables in the environment.
    fn start_in(
        &self,
        name: &str,
        program: PathBuf,
        args: &[&[String]],
        environment: &[(String, String)],
    ) -> Process {
        let work = self.path(name);
        std::fs::create_dir_all(&work).unwrap();
        let mut launch = Launch::new(name, program, args.concat(), &work);
        for (name, value) in environment {
            launch = launch.env(name, value);
        }
        Process::start(&launch.env("TMPDIR", work.to_str().unwrap()), &self.tasks).unwrap()
    }

    /// Starts a server, and gives its endpoint.
    async fn serve(&self, name: &str, program: &str, args: &[&[String]]) -> (Process, String) {
        self.serve_in(name, program, args, &[]).await
    }

    /// With these variables in the environment.
    async fn serve_in(
        &self,
        name: &str,
        program: &str,
        args: &[&[String]],
        environment: &[(String, String)],
    ) -> (Process, String) {
        let mut process = self.start_in(name, binary(program), args, environment);
        let endpoint = |line: &str| {
            let (_, rest) = line.split_once("serving on ")?;
            rest.split([',', ' ']).next().map(str::to_owned)
        };
        let endpoint = process.wait_line("serving on", LIMIT, endpoint).await.unwrap();
        (process, endpoint)
    }

    /// Runs `courant` to its end: whether it succeeded, and what it said on standard output or else on standard error.
    async fn courant(&self, broker: &str, tls: &[String], args: &[&str]) -> Result<String, String> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let address = [format!("--broker.address={broker}")];
        let mut process = self.start("courant", binary("courant"), &[&args, &address, tls]);
        let status = process.wait_exit(LIMIT).await.unwrap();
        if status.success() { Ok(process.stdout()) } else { Err(process.stderr_tail()) }
    }

    /// As a user of the cluster, which must succeed.
    async fn ok(&self, broker: &str, args: &[&str]) -> String {
        self.courant(broker, &self.tls("broker.", "user", "ca.pem"), args).await.unwrap()
    }

    /// Appends a line to `tls/one`, and reads all lines back.
    async fn append(&self, broker: &str, line: &str) -> String {
        let input = self.write("input", &format!("{line}\n"));
        self.ok(broker, &["journals", "append", "-l", "name=tls/one", "--input", &input]).await;
        self.ok(broker, &["journals", "read", "-l", "name=tls/one"]).await
    }
}

fn broker_args(site: &Site, index: usize, etcd: &str) -> Vec<String> {
    let store = site.path("store");
    std::fs::create_dir_all(&store).unwrap();
    [
        "serve".to_owned(),
        format!("--broker.id=broker-{index}"),
        "--broker.host=127.0.0.1".to_owned(),
        format!("--broker.data-dir={}", site.path(&format!("broker-{index}")).display()),
        format!("--broker.file-root={}", store.display()),
        format!("--etcd.address={etcd}"),
        "--etcd.lease=5s".to_owned(),
    ]
    .into_iter()
    .chain(site.tls("broker.server-", "node", "ca.pem"))
    .chain(site.tls("broker.peer-", "node", "ca.pem"))
    .chain(site.tls("etcd.", "node", "ca.pem"))
    .collect()
}

fn summer_args(site: &Site, index: usize, etcd: &str, broker: &str) -> Vec<String> {
    [
        "serve".to_owned(),
        format!("--consumer.id=summer-{index}"),
        "--consumer.host=127.0.0.1".to_owned(),
        format!("--etcd.address={etcd}"),
        "--etcd.lease=5s".to_owned(),
        format!("--broker.address={broker}"),
    ]
    .into_iter()
    .chain(site.tls("consumer.server-", "node", "ca.pem"))
    .chain(site.tls("consumer.peer-", "node", "ca.pem"))
    .chain(site.tls("broker.", "node", "ca.pem"))
    .chain(site.tls("etcd.", "node", "ca.pem"))
    .collect()
}

/// An etcd which requires certificates. It reads its authorities once, so it knows all of them from the beginning.
async fn start_etcd(site: &Site) -> (Process, String) {
    let [client, peer] = [free_port().unwrap(), free_port().unwrap()];
    let (client, peer) = (format!("https://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
    let args = [
        "--name=etcd".to_owned(),
        format!("--data-dir={}", site.path("etcd-data").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=etcd={peer}"),
        "--client-cert-auth".to_owned(),
        format!("--cert-file={}", site.path("node.pem").display()),
        format!("--key-file={}", site.path("node.key").display()),
        format!("--trusted-ca-file={}", site.path("etcd-ca.pem").display()),
    ];
    let mut etcd = site.start("etcd", PathBuf::from("etcd"), &[&args]);
    let is_ready = |line: &str| line.contains("serving client").then_some(());
    etcd.wait_line("serving client", LIMIT, is_ready).await.unwrap();
    (etcd, client)
}

/// Those who are not to be let in are not, and are told why.
async fn check_refusals(site: &Site, broker: &str) {
    Authority::new("foreign").unwrap().issue(site.dir.path(), "foreign", &["user"]).unwrap();
    site.write("foreign-ca.pem", &Authority::new("foreign").unwrap().pem());
    let nobody = vec![format!("--broker.trusted-ca-file={}", site.path("ca.pem").display())];
    let plain = broker.replace("https://", "http://");
    for (broker, tls, reason) in [
        (
            broker,
            site.tls("broker.", "foreign", "ca.pem"),
            "the server refuses this client: received fatal alert: UnknownCA",
        ),
        (broker, nobody, "the server refuses this client: received fatal alert: CertificateRequired"),
        (
            broker,
            site.tls("broker.", "user", "foreign-ca.pem"),
            "the server is not trusted: invalid peer certificate: UnknownIssuer",
        ),
        (&plain, site.tls("broker.", "user", "ca.pem"), ""),
    ] {
        let error = site.courant(broker, &tls, &["journals", "list", "--timeout=2s"]).await.unwrap_err();
        let last = error.lines().last().unwrap();
        assert!(last.starts_with("error: ") && last.contains(reason), "expected {reason:?} in {error}");
    }
    let half = vec![format!("--broker.cert-file={}", site.path("user.pem").display())];
    let error = site.courant(broker, &half, &["journals", "list"]).await.unwrap_err();
    assert!(error.contains("--broker.cert-key-file: is missing"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_with_mutual_tls_goes_on_when_its_authority_is_replaced() {
    let site = Site::new();
    let (old, new) = (Authority::new("old").unwrap(), Authority::new("new").unwrap());
    let both = old.pem() + &new.pem();
    site.write("ca.pem", &old.pem());
    site.write("etcd-ca.pem", &both);
    site.issue(&old);
    old.issue(site.dir.path(), "former", &["former"]).unwrap();

    let (_etcd, etcd) = start_etcd(&site).await;
    let (_one, broker) = site.serve("broker-0", "courant", &[&broker_args(&site, 0, &etcd)]).await;
    let (_two, other) = site.serve("broker-1", "courant", &[&broker_args(&site, 1, &etcd)]).await;
    assert!(broker.starts_with("https://127.0.0.1:") && other.starts_with("https://"), "{broker} {other}");
    let copies = Copies { replication: 2, hot_standbys: 1 };
    let specs = site.write("journals.yaml", &stream_sum_journals(copies).unwrap());
    site.ok(&broker, &["journals", "apply", "--specs", &specs]).await;
    let raw = |copies| raw_journals("tls/", &["tls/one".to_owned()], copies);
    let specs = site.write("raw.yaml", &raw(copies));
    site.ok(&other, &["journals", "apply", "--specs", &specs]).await;
    assert_eq!(site.append(&broker, "first").await, "first");
    assert_eq!(site.append(&other, "second").await, "first\nsecond");

    let (_summer, summer) = site.serve("summer-0", "summer", &[&summer_args(&site, 0, &etcd, &broker)]).await;
    let _second = site.serve("summer-1", "summer", &[&summer_args(&site, 1, &etcd, &other)]).await;
    let specs = site.write("shards.yaml", &stream_sum_shards(copies).unwrap());
    let consumer = format!("--consumer.address={summer}");
    let consumer_tls = site.tls("consumer.", "user", "ca.pem");
    let shards = |command: &[&str]| {
        let consumer = [consumer.as_str()].into_iter().chain(consumer_tls.iter().map(String::as_str));
        ["shards"].into_iter().chain(command.iter().copied()).chain(consumer).map(str::to_owned).collect()
    };
    let apply: Vec<String> = shards(&["apply", "--specs", &specs]);
    site.ok(&broker, &apply.iter().map(String::as_str).collect::<Vec<_>>()).await;

    let args = ["run", "--chunker.progress=plain", "--chunker.streams=-1", "--chunker.chunks=8"];
    let args = args.map(str::to_owned);
    let address = [format!("--broker.address={broker}")];
    let chunker =
        site.start("chunker", binary("chunker"), &[&args, &address, &site.tls("broker.", "user", "ca.pem")]);
    let mut load = Load::of(chunker);
    load.wait_verified(4, LIMIT).await.unwrap();
    check_refusals(&site, &broker).await;

    // First the new authority is trusted, then used, and then the old one is trusted no more.
    site.write("ca.pem", &both);
    site.issue(&new);
    site.write("new-ca.pem", &new.pem());
    let modern = site.tls("broker.", "user", "new-ca.pem");
    site.courant(&broker, &modern, &["journals", "list"]).await.unwrap();
    site.write("ca.pem", &new.pem());
    let former = site.tls("broker.", "former", "new-ca.pem");
    let deadline = site.clock.now() + LIMIT;
    // What was trusted a second ago may be trusted still.
    let refused = loop {
        match site.courant(&broker, &former, &["journals", "list", "--timeout=2s"]).await {
            Err(error) => break error,
            Ok(_) => assert!(site.clock.now() < deadline, "the old authority is trusted still"),
        }
    };
    assert!(refused.contains("the server refuses this client: received fatal alert: UnknownCA"), "{refused}");

    // A broker which knows the new authority alone joins those which run since before.
    let (_three, third) = site.serve("broker-2", "courant", &[&broker_args(&site, 2, &etcd)]).await;
    let more = raw(Copies { replication: 3, ..copies }).replace("tls/one}", "tls/one, revision: -1}");
    let specs = site.write("raw.yaml", &more);
    site.ok(&third, &["journals", "apply", "--specs", &specs]).await;
    assert_eq!(site.append(&broker, "third").await, "first\nsecond\nthird");
    assert_eq!(site.append(&third, "fourth").await, "first\nsecond\nthird\nfourth");

    let verified = load.verified();
    load.wait_verified(verified + 8, LIMIT).await.unwrap();
    let list: Vec<String> = shards(&["list"]);
    let listing = site.ok(&broker, &list.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert!(listing.contains("PRIMARY"), "{listing}");
    let totals = load.finish(LIMIT).await.unwrap();
    assert_eq!((totals.mismatches, totals.duplicates), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_machine_has_tls_with_the_etcd_of_its_broker() {
    let site = Site::new();
    let authority = Authority::new("ours").unwrap();
    site.write("ca.pem", &authority.pem());
    // The broker reaches its own etcd by the loopback address, which the certificate does not speak of.
    authority.issue(site.dir.path(), "node", &["localhost"]).unwrap();
    authority.issue(site.dir.path(), "user", &["user"]).unwrap();
    let args = [
        "serve".to_owned(),
        "--broker.host=localhost".to_owned(),
        "--broker.port=0".to_owned(),
        format!("--broker.data-dir={}", site.path("broker").display()),
    ];
    let (server, peer) =
        (site.tls("broker.server-", "node", "ca.pem"), site.tls("broker.peer-", "node", "ca.pem"));
    let (_broker, broker) = site.serve("broker", "courant", &[&args, &server, &peer]).await;
    assert!(broker.starts_with("https://localhost:"), "{broker}");
    let user = site.tls("broker.", "user", "ca.pem");
    let address = [format!("--broker.address={broker}")];
    let (_summer, summer) = site.serve("summer", "summer", &[&["serve".to_owned()], &address, &user]).await;
    assert!(summer.starts_with("http://127.0.0.1:"), "{summer}");
    let copies = Copies { replication: 1, hot_standbys: 0 };
    let journals = site.write("journals.yaml", &stream_sum_journals(copies).unwrap());
    site.ok(&broker, &["journals", "apply", "--specs", &journals]).await;
    let shards = site.write("shards.yaml", &stream_sum_shards(copies).unwrap());
    let consumer = format!("--consumer.address={summer}");
    site.ok(&broker, &["shards", "apply", "--specs", &shards, &consumer]).await;

    let args = ["run", "--chunker.workers=1", "--chunker.streams=8", "--chunker.chunks=8"].map(str::to_owned);
    let mut chunker = site.start("chunker", binary("chunker"), &[&args, &address, &user]);
    let status = chunker.wait_exit(LIMIT).await.unwrap();
    assert!(status.success(), "{}", chunker.stderr_tail());
    assert!(chunker.stdout().contains("verified: streams=8"), "{}", chunker.stdout());
}

/// The component of Kubernetes for TLS and tokens, without Kubernetes: its environment, with files, keys and addresses of this
/// machine in the place of those of a cluster.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_environment_of_the_kubernetes_component_makes_a_cluster() {
    let site = Site::new();
    let authority = Authority::new("ours").unwrap();
    site.write("ca.pem", &authority.pem());
    site.write("etcd-ca.pem", &authority.pem());
    site.issue(&authority);
    let (_etcd, etcd) = start_etcd(&site).await;

    let of_test = |value: &str, broker: &str, consumer: &str| match value {
        "file:tls.crt" => site.path("node.pem").display().to_string(),
        "file:tls.key" => site.path("node.key").display().to_string(),
        "file:ca.crt" => site.path("ca.pem").display().to_string(),
        "secret:broker" => "YnJva2Vy".to_owned(),
        "secret:consumer" => "Y29uc3VtZXI=".to_owned(),
        "https://courant-etcd:2379" => etcd.clone(),
        "https://courant:8080" => broker.to_owned(),
        "https://courant-summer:8080" => consumer.to_owned(),
        // Of the port for probes.
        "8081" => "0".to_owned(),
        other => panic!("{other} is not known"),
    };
    let store = site.path("store");
    std::fs::create_dir_all(&store).unwrap();
    let args = [
        "serve".to_owned(),
        "--broker.host=127.0.0.1".to_owned(),
        "--broker.port=0".to_owned(),
        format!("--broker.data-dir={}", site.path("broker").display()),
        format!("--broker.file-root={}", store.display()),
    ];
    let of_broker = environment(&manifest("components/secure/broker.yaml"), "broker", |v| of_test(v, "", ""));
    let (_broker, broker) = site.serve_in("broker", "courant", &[&args], &of_broker).await;
    let of_consumer =
        environment(&manifest("components/secure/consumer.yaml"), "summer", |v| of_test(v, &broker, ""));
    let args = ["serve".to_owned(), "--consumer.host=127.0.0.1".to_owned()];
    let (_summer, summer) = site.serve_in("summer", "summer", &[&args], &of_consumer).await;
    assert!(broker.starts_with("https://") && summer.starts_with("https://"), "{broker} {summer}");

    let copies = Copies { replication: 1, hot_standbys: 0 };
    let journals = site.write("journals.yaml", &stream_sum_journals(copies).unwrap());
    let shards = site.write("shards.yaml", &stream_sum_shards(copies).unwrap());
    let apply = manifest("components/secure/apply.yaml");
    let chunker = manifest("components/secure/chunker.yaml");
    let steps: [(&str, &str, &serde_json::Value, &[&str]); 4] = [
        ("journals", "courant", &apply, &["journals", "apply", "--specs", &journals]),
        ("shards", "courant", &apply, &["shards", "apply", "--specs", &shards]),
        ("await-journals", "courant", &chunker, &["journals", "list"]),
        ("chunker", "chunker", &chunker, &["run", "--chunker.streams=8", "--chunker.chunks=8"]),
    ];
    for (container, program, workload, args) in steps {
        let variables = environment(workload, container, |value| of_test(value, &broker, &summer));
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut process = site.start_in(container, binary(program), &[&args], &variables);
        let status = process.wait_exit(LIMIT).await.unwrap();
        assert!(status.success(), "{container}: {}", process.stderr_tail());
    }
}
