//! Traces: what a command set in motion, from the command to the coordinator to the workers and
//! back, sent to an OpenTelemetry collector (OTLP over gRPC) that the settings name.
//!
//! A span's context travels as W3C's `traceparent`: in the metadata of a call, with a job and its
//! leases, and back with the end of a lease. Until they are started there are no spans, and
//! everything here returns at once. What the collector does not take is dropped: nothing waits for
//! it but the end of a program, and that not for long.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, Tracer,
};
use tonic::transport::{Certificate, ClientTlsConfig};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::config::Address;

/// The target of the spans that are sent. Others, of the libraries say, are not.
pub const TARGET: &str = "palimpsest::trace";
/// The metadata key of a context.
pub const TRACE_PARENT: &str = "traceparent";

/// How often spans are sent, how many wait for it, and how long the collector may take.
const INTERVAL: Duration = Duration::from_secs(1);
const WAITING: usize = 8192;
const PATIENCE: Duration = Duration::from_secs(3);
/// How long the end of the program may wait for the last spans to be sent.
const FAREWELL: Duration = Duration::from_secs(1);

static ON: AtomicBool = AtomicBool::new(false);

/// Whether spans are kept.
pub fn are_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// What sends the spans.
#[derive(Debug)]
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Sends what is left, and waits for it a moment. Called outside of the runtime.
    pub fn stop(self) {
        ON.store(false, Ordering::Relaxed);
        // Lost spans are no reason for a program to fail.
        let _ = self.0.shutdown_with_timeout(FAREWELL);
    }
}

/// Begins to send spans to a collector. `part` is this of new traces; a trace that others began is
/// followed as they decided. `authorities` are those that vouch for a collector with TLS, as PEM;
/// the system's where there are none. Called inside the runtime on which it is sent.
///
/// # Errors
/// When the address is none, or nobody vouches for it.
pub(super) fn start(
    collector: &Address,
    authorities: Option<Vec<u8>>,
    part: f64,
    program: &'static str,
) -> Result<(Tracer, Traces), ExporterBuildError> {
    let mut exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(collector.as_str())
        .with_timeout(PATIENCE);
    if collector.is_secure() {
        let tls = ClientTlsConfig::new();
        exporter = exporter.with_tls_config(match authorities {
            Some(pem) => tls.ca_certificate(Certificate::from_pem(pem)),
            None => tls.with_native_roots(),
        });
    }
    let exporter = exporter.build()?;
    let batches = BatchConfigBuilder::default()
        .with_scheduled_delay(INTERVAL)
        .with_max_queue_size(WAITING)
        .build();
    let resource = Resource::builder_empty()
        .with_service_name(format!("palimpsest-{program}"))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(
            BatchSpanProcessor::builder(exporter)
                .with_batch_config(batches)
                .build(),
        )
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(
            part,
        ))))
        .with_resource(resource)
        .build();
    ON.store(true, Ordering::Relaxed);
    Ok((provider.tracer("palimpsest"), Traces(provider)))
}

/// Makes a new span the child of another, which may be another machine's. What is no `traceparent`
/// changes nothing.
pub fn set_parent(span: &Span, trace_parent: &str) {
    if let Some(context) = read(trace_parent) {
        // It fails only where the span is not kept.
        let _ = span.set_parent(Context::new().with_remote_span_context(context));
    }
}

/// A span's context as `traceparent`; empty where there is none.
pub fn trace_parent(span: &Span) -> String {
    if !are_on() {
        return String::new();
    }
    let context = span.context();
    let context = context.span().span_context().clone();
    if !context.is_valid() {
        return String::new();
    }
    format!(
        "00-{}-{}-{:02x}",
        context.trace_id(),
        context.span_id(),
        context.trace_flags().to_u8()
    )
}

/// Reads `00-TRACE-SPAN-FLAGS`, as <https://www.w3.org/TR/trace-context/> has it.
fn read(trace_parent: &str) -> Option<SpanContext> {
    let mut parts = trace_parent.split('-');
    let (version, trace, span, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, digits: usize| {
        text.len() == digits && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
    };
    if !hex(version, 2) || version == "ff" || !hex(trace, 32) || !hex(span, 16) || !hex(flags, 2) {
        return None;
    }
    // A later version may say more behind it; this one may not.
    if version == "00" && parts.next().is_some() {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let context = SpanContext::new(trace, span, flags, true, Default::default());
    context.is_valid().then_some(context)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_read_as_w3c_has_it_and_nothing_else() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = read(good).unwrap();
        assert_eq!(
            context.trace_id().to_string(),
            "4bf92f3577b34da6a3ce929d0e0e4736"
        );
        assert_eq!(context.span_id().to_string(), "00f067aa0ba902b7");
        assert!(context.is_sampled() && context.is_remote());
        assert!(!read(&good.replace("-01", "-00")).unwrap().is_sampled());
        // A later version may add what this one does not know.
        assert!(read(&(good.replacen("00-", "01-", 1) + "-more")).is_some());
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
        ] {
            assert!(read(bad).is_none(), "{bad}");
        }
        assert_eq!(trace_parent(&Span::none()), "");
    }
}
