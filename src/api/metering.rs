//! Counts, times and traces every call. It stands before everything else, so that what is refused
//! counts too.
#![allow(clippy::disallowed_methods)] // the time that a call takes

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use futures::future::BoxFuture;
use http_body::{Frame, SizeHint};
use tonic::Code;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tower::{Layer, Service};
use tracing::{Instrument, Span, field};

use crate::auth::role;
use crate::telemetry::metrics::{RPC_SECONDS, RPCS, RPCS_OPEN, are_kept};
use crate::telemetry::traces;

/// Puts the counting around a service.
#[derive(Clone, Copy, Debug)]
pub struct Metering;

impl<S> Layer<S> for Metering {
    type Service = Metered<S>;

    fn layer(&self, inner: S) -> Metered<S> {
        Metered { inner }
    }
}

/// A service whose calls are counted.
#[derive(Clone, Debug)]
pub struct Metered<S> {
    inner: S,
}

impl<S> Service<Request<Body>> for Metered<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut call = Call::begin(&request);
        // Services take what the call is part of from the span that they are called in.
        let span = call.span.clone();
        let answer = span.in_scope(|| self.inner.call(request)).instrument(span);
        Box::pin(async move {
            let response = answer.await?;
            call.read(response.headers());
            Ok(response.map(|body| Body::new(Counted { body, call })))
        })
    }
}

/// The span of a call, to the end of its answer: below the caller's, where there is one.
fn span(request: &Request<Body>, method: &str) -> Span {
    // Not of probes.
    if !traces::are_on() || !request.uri().path().starts_with("/palimpsest.") {
        return Span::none();
    }
    let span = tracing::info_span!(
        target: traces::TARGET,
        parent: None,
        "call",
        otel.name = method,
        otel.kind = "server",
        rpc.grpc.status_code = field::Empty
    );
    let caller = request.headers().get(traces::TRACE_PARENT);
    if let Some(trace_parent) = caller.and_then(|value| value.to_str().ok()) {
        traces::set_parent(&span, trace_parent);
    }
    span
}

/// A call that has not ended. Whoever drops it before it has a status has given it up.
struct Call {
    method: &'static str,
    span: Span,
    /// Whether it is counted.
    counted: bool,
    begun: Instant,
    code: Option<Code>,
}

impl Call {
    fn begin(request: &Request<Body>) -> Self {
        // Anybody can make up a method: those that are not known share a name.
        let method = role::method(request.uri().path()).unwrap_or("unknown");
        let counted = are_kept();
        if counted {
            RPCS_OPEN.change([method], 1.0);
        }
        Self {
            method,
            span: span(request, method),
            counted,
            begun: Instant::now(),
            code: None,
        }
    }

    /// The status stands in the trailers, or in the headers if there is nothing but it.
    fn read(&mut self, headers: &HeaderMap) {
        if let Some(code) = headers.get("grpc-status") {
            self.code = Some(Code::from_bytes(code.as_bytes()));
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let code = self.code.unwrap_or(Code::Cancelled);
        self.span.record("rpc.grpc.status_code", code as i32);
        // A span ends when it was left last, not when it is dropped.
        self.span.in_scope(|| ());
        if !self.counted {
            return;
        }
        RPCS_OPEN.change([self.method], -1.0);
        RPCS.add([self.method, name(code)], 1);
        RPC_SECONDS.observe([self.method], self.begun.elapsed().as_secs_f64());
    }
}

struct Counted {
    body: Body,
    call: Call,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(trailers) = frame.trailers_ref()
        {
            self.call.read(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A code as gRPC writes it.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
