//! What a collector of traces is told of a cluster: an append from its client through the primary to the replica, reads,
//! transactions with the appends that they cause, and recoveries.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use runtime::{Clock, OnError, TaskGroup, server};
use tests::fleet::specs::Copies;
use tests::fleet::{Fleet, FleetOptions, Quirk};
use tonic::{Request, Response, Status};

const LIMIT: Duration = Duration::from_secs(120);

#[derive(Clone, Debug)]
struct Span {
    /// Name and process id of whose it is.
    service: (String, i64),
    name: String,
    trace: Vec<u8>,
    id: Vec<u8>,
    parent: Vec<u8>,
    attributes: BTreeMap<String, String>,
}

/// A collector which keeps what it is sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    let pair = |pair: &KeyValue| Some((pair.key.clone(), text(pair.value.as_ref()?.value.as_ref()?)));
    attributes.iter().filter_map(pair).collect()
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut spans = self.0.lock().unwrap();
        for resource in request.into_inner().resource_spans {
            let about = texts(&resource.resource.unwrap_or_default().attributes);
            let service = (about["service.name"].clone(), about["process.pid"].parse().unwrap());
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                spans.push(Span {
                    service: service.clone(),
                    name: span.name,
                    trace: span.trace_id,
                    id: span.span_id,
                    parent: span.parent_span_id,
                    attributes: texts(&span.attributes),
                });
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Waits until `find` finds what it looks for.
    async fn wait_for<T>(&self, what: &str, find: impl Fn(&Spans) -> Option<T>) -> T {
        let clock = Clock::system();
        let begun = clock.now();
        loop {
            let spans = Spans(self.0.lock().unwrap().clone());
            if let Some(found) = find(&spans) {
                return found;
            }
            if clock.now() - begun > LIMIT {
                let names: BTreeMap<_, usize> = spans.0.iter().fold(BTreeMap::new(), |mut names, span| {
                    *names.entry((&span.service.0, &span.name)).or_default() += 1;
                    names
                });
                panic!("no {what} in {names:?}");
            }
            clock.sleep(Duration::from_millis(100)).await;
        }
    }
}

struct Spans(Vec<Span>);

impl Spans {
    fn named<'a>(&'a self, service: &'a str, name: &'a str) -> impl Iterator<Item = &'a Span> {
        self.0.iter().filter(move |span| span.service.0 == service && span.name == name)
    }

    /// A span of `service` called `name` which `parent` caused.
    fn child(&self, parent: &Span, service: &str, name: &str) -> Option<Span> {
        let is_child = |span: &&Span| span.parent == parent.id && span.trace == parent.trace;
        self.named(service, name).find(is_child).cloned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_are_exported_and_form_the_tree_of_what_caused_what() {
    let dir = tempfile::tempdir().unwrap();
    let address = format!("unix://{}", dir.path().join("collector.sock").display());
    let (collector, tasks) = (Collector::default(), TaskGroup::new("collector"));
    let listener = server::Listener::bind(&address).await.unwrap();
    let router = tonic::service::Routes::new(TraceServiceServer::new(collector.clone())).into_axum_router();
    let serve = server::serve(listener, router, tasks.child("server"), Clock::system(), Duration::ZERO);
    tasks.spawn("collector", OnError::Log, serve);

    let envs = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), address),
        ("OTEL_BSP_SCHEDULE_DELAY".to_owned(), "200".to_owned()),
    ];
    let copies = Copies { replication: 2, hot_standbys: 0 };
    let options =
        FleetOptions { brokers: 2, zones: 2, summers: 1, copies, envs: envs.clone(), ..Default::default() };
    let mut fleet = Fleet::start(options).await.unwrap();
    fleet.apply_stream_sum().await.unwrap();
    let quirk = Quirk { envs, ..Quirk::default() };
    let args = ["--chunker.streams=4", "--chunker.chunks=5", "--chunker.workers=1"];
    let mut chunker = fleet.start_chunker(&args, &quirk).unwrap();
    let status = chunker.wait_exit(LIMIT).await.unwrap();
    assert!(status.success(), "{}", chunker.stderr_tail());

    // An append of the chunker: through the primary, its group, and the other replica.
    let (server, replica) = collector
        .wait_for("append from client to replica", |spans| {
            spans.named("chunker", "append").find_map(|append| {
                // It may have been proxied to the primary.
                let server = spans.child(append, "courant", "Append")?;
                let primary = spans.child(&server, "courant", "Append").unwrap_or(server);
                let group = spans.child(&primary, "courant", "commit group")?;
                let replica = spans.child(&group, "courant", "replicate")?;
                Some((primary, replica))
            })
        })
        .await;
    assert_ne!(server.service, replica.service, "the replica is another process");
    assert_eq!(server.attributes["journal"], replica.attributes["journal"]);

    // A transaction of the summer, and what it caused: its recovery log is appended to by a thread of RocksDB's user.
    let transaction = collector
        .wait_for("transaction with its appends", |spans| {
            spans.named("summer", "transaction").find_map(|transaction| {
                let batch = spans.child(transaction, "summer", "append batch")?;
                let append = spans.child(&batch, "summer", "append")?;
                spans.child(&append, "courant", "Append")?;
                Some(transaction.clone())
            })
        })
        .await;
    assert!(transaction.attributes.contains_key("messages"), "{transaction:?}");
    assert!(transaction.attributes["shard"].contains("chunks-part-"), "{transaction:?}");
    collector.wait_for("recovery", |spans| spans.named("summer", "recovery").next().cloned()).await;
    collector
        .wait_for("read", |spans| {
            spans.named("courant", "Read").find(|span| span.attributes.contains_key("journal")).cloned()
        })
        .await;
    tasks.cancel();
}
