//! Access tokens over processes: a cluster with keys does its work, who has no key is refused, keys are replaced while
//! journals are written, and tokens expire while requests are served.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::path::Path;
use std::time::Duration;

use futures::{Stream, StreamExt};
use proto::protocol::journal_client::JournalClient;
use proto::protocol::{
    AppendRequest, AppendResponse, CompressionCodec, Fragment, Header, ListRequest, ReplicateRequest,
    ReplicateResponse, Status,
};
use runtime::{Clock, TaskGroup};
use tempfile::TempDir;
use tests::cluster::served_endpoint;
use tests::process::{Launch, Process, binary};
use tonic::transport::Channel;
use tonic::{Code, Request};

const LIMIT: Duration = Duration::from_secs(60);
const OLD: &str = "b2xkLWtleS1vZi10aGUtdGVzdA==";
const NEW: &str = "bmV3LWtleS1vZi10aGUtdGVzdA==";

const SPECS: &str = "\
name: auth/
replication: 2
fragment: {length: 65536, compression_codec: NONE, refresh_interval: 1s, stores: ['file:///']}
labels: [{name: content-type, value: application/x-ndjson}]
children: [{name: auth/one}, {name: auth/two}]
";

/// Three brokers over an etcd of their own.
struct Brokers {
    dir: TempDir,
    tasks: TaskGroup,
    etcd: String,
    _etcd: Process,
    brokers: Vec<Process>,
    urls: Vec<String>,
}

/// What a command came to.
struct Outcome {
    is_ok: bool,
    stdout: String,
    stderr: String,
}

async fn served(mut process: Process) -> (Process, String) {
    let url = process.wait_line("serving on", LIMIT, served_endpoint).await.unwrap();
    (process, url)
}

impl Brokers {
    async fn start(keys: &str) -> Brokers {
        let dir = TempDir::with_prefix("courant-auth-").unwrap();
        let tasks = TaskGroup::new("auth");
        std::fs::create_dir_all(dir.path().join("store")).unwrap();
        let data = format!("--broker.data-dir={}", dir.path().join("etcd").display());
        let args = ["serve", "--broker.port=0", "--broker.limit=0", &data];
        let launch = Launch::new("etcd", binary("courant"), args, dir.path());
        let (etcd, url) = served(Process::start(&launch, &tasks).unwrap()).await;
        let mut it = Brokers { dir, tasks, etcd: url, _etcd: etcd, brokers: Vec::new(), urls: Vec::new() };
        for index in 0..3 {
            let (broker, url) = it.broker(index, "0", keys).await;
            it.brokers.push(broker);
            it.urls.push(url);
        }
        it
    }

    async fn broker(&self, index: usize, port: &str, keys: &str) -> (Process, String) {
        let dir = self.dir.path();
        let args = [
            "serve".to_owned(),
            format!("--etcd.address={}", self.etcd),
            // Longer than a process is stopped here.
            "--etcd.lease=60s".to_owned(),
            "--broker.host=127.0.0.1".to_owned(),
            format!("--broker.port={port}"),
            format!("--broker.id=broker-{index}"),
            format!("--broker.zone=zone-{index}"),
            format!("--broker.data-dir={}", dir.join(format!("broker-{index}")).display()),
            format!("--broker.file-root={}", dir.join("store").display()),
            "--log.level=info".to_owned(),
        ];
        let launch = Launch::new(&format!("broker-{index}"), binary("courant"), args, dir)
            .env("BROKER_AUTH_KEYS", keys);
        served(Process::start(&launch, &self.tasks).unwrap()).await
    }

    /// Stops a broker in order, and starts it with other keys.
    async fn rekey(&mut self, index: usize, keys: &str) {
        let status = self.brokers[index].terminate(LIMIT).await.unwrap();
        assert!(status.success(), "{}", self.brokers[index].stderr_tail());
        let said = self.brokers[index].stderr_tail();
        assert!(!said.contains(OLD) && !said.contains(NEW), "a key is in the log:\n{said}");
        let port = self.urls[index].rsplit(':').next().unwrap().to_owned();
        self.brokers[index] = self.broker(index, &port, keys).await.0;
    }

    /// Runs `courant` against the broker at `index`, with this environment.
    async fn courant(&self, index: usize, envs: &[(&str, &str)], args: &[&str]) -> Outcome {
        let args = args.iter().copied();
        let mut launch = Launch::new("courant", binary("courant"), args, self.dir.path())
            .env("BROKER_ADDRESS", &self.urls[index]);
        for (name, value) in envs {
            launch = launch.env(name, value);
        }
        let mut process = Process::start(&launch, &self.tasks).unwrap();
        let status = process.wait_exit(LIMIT).await.unwrap();
        let (stdout, stderr) = (process.stdout(), process.stderr_tail());
        Outcome { is_ok: status.success(), stdout, stderr }
    }

    async fn must(&self, index: usize, envs: &[(&str, &str)], args: &[&str]) -> String {
        let outcome = self.courant(index, envs, args).await;
        assert!(outcome.is_ok, "{args:?}: {}", outcome.stderr);
        outcome.stdout
    }

    /// A file with `content`.
    fn file(&self, name: &str, content: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

fn example(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/stream-sum").join(name).display().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_replaced_while_journals_are_written() {
    let mut it = Brokers::start(OLD).await;
    let specs = it.file("specs.yaml", SPECS);
    it.must(0, &[("BROKER_AUTH_KEYS", OLD)], &["journals", "apply", "--specs", &specs]).await;
    let read = ["journals", "read", "-l", "name=auth/one"];
    let mut expected = Vec::new();
    for (stage, client) in [
        (OLD.to_owned(), OLD),
        (format!("{OLD},{NEW}"), OLD),
        (format!("{NEW},{OLD}"), NEW),
        (NEW.to_owned(), NEW),
    ] {
        for index in 0..3 {
            if stage != OLD {
                it.rekey(index, &stage).await;
            }
            // By way of a broker that may not be the primary, and may have other keys than it.
            let line = format!("\"{} {index}\"", expected.len());
            let input = it.file("input", &format!("{line}\n"));
            let append = ["journals", "append", "-l", "name=auth/one", "-i", &input];
            it.must((index + 1) % 3, &[("BROKER_AUTH_KEYS", client)], &append).await;
            expected.push(line);
        }
        for index in 0..3 {
            let found = it.must(index, &[("BROKER_AUTH_KEYS", client)], &read).await;
            assert_eq!(found, expected.join("\n"));
        }
    }
    let refused = it.courant(0, &[("BROKER_AUTH_KEYS", OLD)], &read).await;
    assert!(!refused.is_ok && refused.stderr.contains("signature is invalid"), "{}", refused.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_and_applications_work_with_what_they_were_given() {
    let it = Brokers::start(OLD).await;
    let keys = [("BROKER_AUTH_KEYS", OLD), ("CONSUMER_AUTH_KEYS", NEW)];
    let specs = it.file("specs.yaml", SPECS);
    let refused = it.courant(0, &[], &["journals", "apply", "--specs", &specs]).await;
    assert!(
        !refused.is_ok && refused.stderr.contains("missing or empty Authorization token"),
        "{}",
        refused.stderr
    );
    assert!(refused.stderr.contains("check the auth keys"), "{}", refused.stderr);
    it.must(0, &keys, &["journals", "apply", "--specs", &specs]).await;
    let input = it.file("input", "\"kept\"\n");
    let append = ["journals", "append", "-l", "name=auth/one", "-i", &input];
    it.must(1, &keys, &append).await;

    // A token of one journal reads that one, and knows of no other.
    let make = ["token", "--allow", "LIST,READ", "-l", "name=auth/one", "--lifetime", "1h"];
    let token = it.must(0, &keys[..1], &make).await;
    let token = [("BROKER_AUTH_TOKEN", token.as_str())];
    assert_eq!(it.must(2, &token, &["journals", "read", "-l", "name=auth/one"]).await, "\"kept\"");
    let listed = it.must(1, &token, &["journals", "list"]).await;
    assert!(listed.contains("auth/one") && !listed.contains("auth/two"), "{listed}");
    let refused = it.courant(1, &token, &append).await;
    assert!(
        !refused.is_ok && refused.stderr.contains("missing required APPEND capability"),
        "{}",
        refused.stderr
    );

    // An application whose processes, journals and shards all need tokens.
    it.must(0, &keys, &["journals", "apply", "--specs", &example("journals.yaml")]).await;
    let (broker, etcd) = (format!("--broker.address={}", it.urls[0]), format!("--etcd.address={}", it.etcd));
    let args = ["serve", &broker, &etcd, "--consumer.host=127.0.0.1", "--etcd.lease=10s"];
    let mut launch = Launch::new("summer", binary("summer"), args, it.dir.path());
    launch = launch.env("TMPDIR", it.dir.path().to_str().unwrap());
    for (name, value) in keys {
        launch = launch.env(name, value);
    }
    let (_summer, summer) = served(Process::start(&launch, &it.tasks).unwrap()).await;
    let consumer = format!("--consumer.address={summer}");
    let shards = example("shards.yaml");
    let apply = ["shards", "apply", &consumer, "--specs", &shards];
    let refused = it.courant(0, &keys[..1], &apply).await;
    assert!(
        !refused.is_ok && refused.stderr.contains("missing or empty Authorization token"),
        "{}",
        refused.stderr
    );
    it.must(0, &keys, &apply).await;
    let args = ["run", &broker, "--chunker.streams=8", "--chunker.progress=plain"];
    let launch = Launch::new("chunker", binary("chunker"), args, it.dir.path()).env("BROKER_AUTH_KEYS", OLD);
    let mut chunker = Process::start(&launch, &it.tasks).unwrap();
    let status = chunker.wait_exit(LIMIT).await.unwrap();
    assert!(status.success(), "{}", chunker.stderr_tail());
    assert!(chunker.stdout().contains("mismatches=0 duplicates=0"), "{}", chunker.stdout());
}

impl Brokers {
    fn client(&self, index: usize) -> JournalClient<Channel> {
        JournalClient::new(runtime::grpc::channel(&self.urls[index]).unwrap())
    }

    /// A request of `message` with a token for `auth/one` that expires in `seconds`, or up to a second before.
    async fn request<T>(&self, message: T, allow: &str, seconds: u64) -> Request<T> {
        let lifetime = format!("{seconds}s");
        let make = ["token", "--allow", allow, "-l", "name=auth/one", "--lifetime", &lifetime];
        let token = self.must(0, &[("BROKER_AUTH_KEYS", OLD)], &make).await;
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", format!("Bearer {}", token.trim()).parse().unwrap());
        request
    }

    /// Where `auth/one` is: a header with its route, and the indices of its primary and its other broker.
    async fn route(&self) -> (Header, usize, usize) {
        let list = self.request(ListRequest::default(), "LIST", 60).await;
        let page = self.client(0).list(list).await.unwrap().into_inner().message().await.unwrap().unwrap();
        let route = page.journals[0].route.clone().unwrap();
        let primary = usize::try_from(route.primary).unwrap();
        let index = |member: usize| self.urls.iter().position(|url| *url == route.endpoints[member]).unwrap();
        let (first, second) = (index(primary), index(1 - primary));
        let process = route.members[1 - primary].clone();
        (Header::routed(process, route, page.header.unwrap().etcd.unwrap()), first, second)
    }

    /// Appends a line with a key, by way of each broker in turn, and reads everything by way of each.
    async fn check_goes_on(&self, expected: &mut Vec<String>) {
        for index in 0..3 {
            let line = format!("\"line {}\"", expected.len());
            let input = self.file("input", &format!("{line}\n"));
            let append = ["journals", "append", "-l", "name=auth/one", "-i", &input];
            self.must(index, &[("BROKER_AUTH_KEYS", OLD)], &append).await;
            expected.push(line);
        }
        for index in 0..3 {
            let read = ["journals", "read", "-l", "name=auth/one"];
            let found = self.must(index, &[("BROKER_AUTH_KEYS", OLD)], &read).await;
            // A client repeats an append whose outcome it was not told, as of a replica whose stream was cut.
            let mut lines: Vec<_> = found.lines().collect();
            lines.dedup();
            assert_eq!(lines, *expected);
        }
    }
}

/// What a request is refused with whose token has expired before it had begun, or was all there. How soon a token of few
/// seconds is over depends on the machine: such a request is made again, with a token of more.
fn came_too_late(code: Code) -> bool {
    matches!(code, Code::DeadlineExceeded | Code::Unauthenticated)
}

/// Lifetimes of tokens to try, in seconds: shorter than what it takes to notice that a broker does not live.
const LIFETIMES: [u64; 4] = [2, 3, 5, 7];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replication_stream_is_cut_when_its_token_expires_and_the_journal_goes_on() {
    let it = Brokers::start(OLD).await;
    let specs = it.file("specs.yaml", SPECS);
    it.must(0, &[("BROKER_AUTH_KEYS", OLD)], &["journals", "apply", "--specs", &specs]).await;
    let mut expected = Vec::new();
    it.check_goes_on(&mut expected).await;

    // A primary which does not renew its stream: it supersedes that of the broker which is the primary.
    let (header, _, replica) = it.route().await;
    let opening = ReplicateRequest {
        header: Some(header),
        proposal: Some(Fragment {
            journal: "auth/one".to_owned(),
            compression_codec: CompressionCodec::None.into(),
            ..Fragment::default()
        }),
        acknowledge: true,
        ..ReplicateRequest::default()
    };
    let mut outcomes = Vec::new();
    for seconds in LIFETIMES {
        let messages = futures::stream::iter([opening.clone()]).chain(futures::stream::pending());
        let stream = it.request(messages, "REPLICATE", seconds).await;
        let begun = Clock::system().unix_now();
        let outcome = Clock::system().timeout(LIMIT, replicate(it.client(replica), stream)).await.unwrap();
        outcomes.push(outcome);
        if let Ok((first, ended)) = outcomes.last().unwrap() {
            let stood = Clock::system().unix_now() - begun;
            assert!(matches!(first.status(), Status::Ok | Status::ProposalMismatch), "{first:?}");
            assert_eq!(ended.code(), Code::Unavailable, "{ended}");
            assert_eq!(ended.message(), "the access token of this replication stream has expired");
            assert!(stood >= Duration::from_secs(seconds) - Duration::from_secs(2), "{stood:?}");
            break;
        }
        let refused = outcomes.last().unwrap().as_ref().unwrap_err();
        assert!(came_too_late(refused.code()), "{refused}");
    }
    assert!(outcomes.last().unwrap().is_ok(), "{outcomes:?}");
    it.check_goes_on(&mut expected).await;
}

/// The first answer of a stream, and what it ends with.
async fn replicate(
    mut client: JournalClient<Channel>,
    stream: Request<impl Stream<Item = ReplicateRequest> + Send + 'static>,
) -> Result<(ReplicateResponse, tonic::Status), tonic::Status> {
    let mut answers = client.replicate(stream).await?.into_inner();
    let first = answers.message().await?.expect("it is answered");
    let end = loop {
        match answers.message().await {
            Ok(Some(_)) => {}
            Ok(None) => break tonic::Status::ok("it ended in order"),
            Err(status) => break status,
        }
    };
    Ok((first, end))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_whose_token_expires_while_it_is_queued_is_committed() {
    let it = Brokers::start(OLD).await;
    let specs = it.file("specs.yaml", SPECS);
    it.must(0, &[("BROKER_AUTH_KEYS", OLD)], &["journals", "apply", "--specs", &specs]).await;
    let mut expected = Vec::new();
    it.check_goes_on(&mut expected).await;
    let (_, primary, replica) = it.route().await;

    let clock = Clock::system();
    let content = format!("\"line {}\"", expected.len());
    let mut is_committed = false;
    for seconds in LIFETIMES {
        // Nothing is committed while the other broker does not acknowledge it.
        it.brokers[replica].signal(libc::SIGSTOP).unwrap();
        let messages = [
            AppendRequest { journal: "auth/one".to_owned(), ..AppendRequest::default() },
            AppendRequest { content: format!("{content}\n").into(), ..AppendRequest::default() },
            AppendRequest::default(),
        ];
        let append = it.request(futures::stream::iter(messages), "APPEND", seconds).await;
        let expires = clock.unix_now() + Duration::from_secs(seconds);
        let mut client = it.client(primary);
        let mut appended = Box::pin(client.append(append));
        let early = tokio::select! {
            biased;
            outcome = &mut appended => Some(outcome),
            () = clock.sleep_until_unix(expires) => None,
        };
        it.brokers[replica].signal(libc::SIGCONT).unwrap();
        let outcome = match early {
            None => clock.timeout(LIMIT, appended).await.unwrap(),
            Some(Err(refused)) => Err(refused),
            Some(Ok(answer)) => panic!("it was answered without the other broker: {answer:?}"),
        };
        match outcome.map(tonic::Response::into_inner) {
            Ok(answer) => {
                check_committed(&answer, &content);
                is_committed = true;
                break;
            }
            Err(refused) => assert!(came_too_late(refused.code()), "{refused}"),
        }
    }
    assert!(is_committed, "it came too late each time");
    expected.push(content);
    it.check_goes_on(&mut expected).await;
}

fn check_committed(answer: &AppendResponse, content: &str) {
    assert_eq!(answer.status(), Status::Ok, "{answer:?}");
    let commit = answer.commit.as_ref().unwrap();
    assert_eq!(usize::try_from(commit.end - commit.begin).unwrap(), content.len() + 1);
}
