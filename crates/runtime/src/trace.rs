//! Distributed tracing: spans of what the processes do for one request, exported over OTLP.
//!
//! Off unless `--trace.otlp-endpoint` names a collector; then a span that nobody asked for costs a comparison. Spans are
//! those of `tracing` with the target [`TARGET`], which the log does not show. Their context crosses processes as the W3C's
//! `traceparent`: in the metadata of gRPC requests ([`request`], [`adopt`]), or as a text of its own ([`context_of`],
//! [`adopt_text`]) where many requests share one stream.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::HeaderMap;
use opentelemetry::KeyValue;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanData, SpanExporter as ExportSpans};
use tonic::metadata::MetadataValue;
use tracing::Span;
use tracing::level_filters::LevelFilter;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;

use crate::BoxError;

/// Target of all spans that are exported: `tracing::info_span!(target: TARGET, …)`.
pub const TARGET: &str = "courant::trace";

/// The header of W3C Trace Context.
const TRACEPARENT: &str = "traceparent";
/// A text longer than this is not a `traceparent`.
const TRACEPARENT_BYTES_MAX: usize = 128;
/// How long a collector may take for one batch, and the end of the process for the last one.
const EXPORT_MAX: Duration = Duration::from_secs(5);

/// Options of tracing.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Tracing")]
pub struct TraceArgs {
    /// Export spans to the OpenTelemetry collector at this URL, by OTLP over gRPC: http://localhost:4317.
    #[arg(
        id = "trace.otlp-endpoint",
        long = "trace.otlp-endpoint",
        value_name = "URL",
        env = "OTEL_EXPORTER_OTLP_ENDPOINT"
    )]
    pub otlp_endpoint: Option<String>,
    /// Share of the traces begun here which are exported, from 0 to 1. Whether one that was begun elsewhere is, was
    /// decided there.
    #[arg(
        id = "trace.sample-ratio",
        long = "trace.sample-ratio",
        value_name = "RATIO",
        env = "TRACE_SAMPLE_RATIO",
        default_value_t = 1.0,
        value_parser = parse_ratio
    )]
    pub sample_ratio: f64,
}

impl Default for TraceArgs {
    fn default() -> TraceArgs {
        TraceArgs { otlp_endpoint: None, sample_ratio: 1.0 }
    }
}

fn parse_ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse::<f64>().map_err(|e| e.to_string())?;
    if (0.0..=1.0).contains(&ratio) { Ok(ratio) } else { Err("expected a number from 0 to 1".to_owned()) }
}

/// An exporter whose failures are told, once until it works again.
#[derive(Debug)]
struct Told<E> {
    inner: E,
    endpoint: String,
    is_failing: AtomicBool,
}

impl<E: ExportSpans> ExportSpans for Told<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let outcome = self.inner.export(batch).await;
        match (&outcome, self.is_failing.swap(outcome.is_err(), Ordering::Relaxed)) {
            (Err(error), false) => {
                tracing::warn!(endpoint = self.endpoint, %error, "spans are lost: the collector does not take them");
            }
            (Ok(()), true) => tracing::warn!(endpoint = self.endpoint, "the collector takes spans again"),
            (Err(_), true) | (Ok(()), false) => {}
        }
        outcome
    }

    fn shutdown_with_timeout(&mut self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Exports what has ended. Dropping it exports the rest, for at most [`EXPORT_MAX`].
pub(crate) struct Exporter {
    provider: SdkTracerProvider,
}

impl Exporter {
    /// An exporter for the process called `service`, if `args` name a collector. It connects when there are spans. Must be
    /// called within a runtime of several threads.
    ///
    /// # Errors
    /// If the URL is malformed.
    pub(crate) fn new(args: &TraceArgs, service: &str) -> Result<Option<Exporter>, BoxError> {
        let Some(endpoint) = args.otlp_endpoint.as_deref().filter(|endpoint| !endpoint.is_empty()) else {
            return Ok(None);
        };
        let channel = crate::grpc::channel(endpoint)?;
        let inner =
            SpanExporter::builder().with_tonic().with_channel(channel).with_timeout(EXPORT_MAX).build()?;
        let exporter = Told { inner, endpoint: endpoint.to_owned(), is_failing: AtomicBool::new(false) };
        let process = i64::from(std::process::id());
        let resource = Resource::builder_empty()
            .with_service_name(service.to_owned())
            .with_attributes([
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("process.pid", process),
            ])
            .build();
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(args.sample_ratio)));
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_sampler(sampler)
            .with_batch_exporter(exporter)
            .build();
        Ok(Some(Exporter { provider }))
    }

    /// What hands spans of `tracing` over.
    pub(crate) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    {
        let tracer = self.provider.tracer("courant");
        let layer =
            tracing_opentelemetry::layer().with_tracer(tracer).with_location(false).with_threads(false);
        layer.with_filter(Targets::new().with_target(TARGET, LevelFilter::INFO))
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        if let Err(error) = self.provider.shutdown_with_timeout(EXPORT_MAX) {
            tracing::warn!(%error, "not all spans were exported");
        }
    }
}

/// The context of a span, to be passed on with what it causes. `None` if it is not exported.
pub fn context_of(span: &Span) -> Option<String> {
    if span.is_disabled() {
        return None;
    }
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&span.context(), &mut carrier);
    carrier.remove(TRACEPARENT)
}

/// Makes `span` part of the trace of a context which came from elsewhere. Of one that is malformed nothing is taken.
pub fn adopt_text(span: &Span, context: &str) {
    if span.is_disabled() || context.len() > TRACEPARENT_BYTES_MAX {
        return;
    }
    let carrier = HashMap::from([(TRACEPARENT.to_owned(), context.to_owned())]);
    let parent = TraceContextPropagator::new().extract(&carrier);
    // A span which has begun keeps its parent.
    drop(span.set_parent(parent));
}

/// A request which is part of the trace of the current span.
pub fn request<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    if let Some(context) = context_of(&Span::current())
        && let Ok(value) = MetadataValue::try_from(context)
    {
        request.metadata_mut().insert(TRACEPARENT, value);
    }
    request
}

/// Makes `span` part of the trace that a request came with, if any.
pub fn adopt(span: &Span, headers: &HeaderMap) {
    if let Some(context) = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()) {
        adopt_text(span, context);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::layer::SubscriberExt;

    #[derive(Clone, Debug, Default)]
    struct Memory(Arc<Mutex<Vec<SpanData>>>);

    impl ExportSpans for Memory {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.0.lock().unwrap().extend(batch);
            Ok(())
        }
    }

    const CONTEXT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    /// Runs `work` under a subscriber as [`Exporter`] makes it, and gives the spans.
    fn traced(work: impl FnOnce()) -> Vec<SpanData> {
        let memory = Memory::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(memory.clone()).build();
        let exporter = Exporter { provider };
        let subscriber = tracing_subscriber::registry().with(exporter.layer());
        tracing::subscriber::with_default(subscriber, work);
        std::mem::take(&mut memory.0.lock().unwrap())
    }

    #[test]
    fn a_span_joins_the_trace_that_a_request_came_with_and_passes_it_on() {
        let mut passed_on = None;
        let spans = traced(|| {
            let headers = HeaderMap::from_iter([(TRACEPARENT.parse().unwrap(), CONTEXT.parse().unwrap())]);
            let span = tracing::info_span!(target: TARGET, "append", journal = "a/journal");
            adopt(&span, &headers);
            passed_on = Some(span.in_scope(|| request(())));
        });
        let [span] = &spans[..] else { panic!("{spans:?}") };
        assert_eq!(span.span_context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(span.parent_span_id.to_string(), "b7ad6b7169203331");
        let expected = format!("00-{}-{}-01", span.span_context.trace_id(), span.span_context.span_id());
        let passed_on = passed_on.unwrap();
        assert_eq!(passed_on.metadata().get(TRACEPARENT).unwrap().to_str().unwrap(), expected);
    }

    #[test]
    fn malformed_contexts_begin_a_trace_of_their_own() {
        for context in ["", "00", "00-zz-1-01", &"0".repeat(10_000), &CONTEXT.replace("0af7", "0AF7-")] {
            let spans = traced(|| {
                let span = tracing::info_span!(target: TARGET, "read");
                adopt_text(&span, context);
            });
            let [span] = &spans[..] else { panic!("{context}: {spans:?}") };
            assert_eq!(span.parent_span_id, opentelemetry::trace::SpanId::INVALID, "{context}");
        }
    }

    #[test]
    fn without_a_collector_there_is_no_context_and_other_spans_are_not_exported() {
        let span = tracing::info_span!(target: TARGET, "append");
        assert_eq!(context_of(&span), None);
        assert!(span.in_scope(|| request(())).metadata().is_empty());
        assert_eq!(traced(|| tracing::info_span!("not ours").in_scope(|| {})).len(), 0);
    }

    #[test]
    fn ratios_are_from_zero_to_one() {
        assert_eq!(parse_ratio("0.25"), Ok(0.25));
        for bad in ["-0.1", "1.1", "NaN", "x", ""] {
            assert!(parse_ratio(bad).is_err(), "{bad}");
        }
    }
}
