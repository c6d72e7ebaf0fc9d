//! One service for a door: it answers pages, refuses what no page of ours sends, and passes the rest
//! on as gRPC.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::{BoxFuture, FutureExt, ready};
use http_body_util::Full;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::codegen::http::request::Parts;
use tonic::codegen::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use tonic::codegen::http::{StatusCode, header};
use tonic_web::{GrpcWebLayer, GrpcWebService};
use tower::{Layer, Service, ServiceExt};

use super::body::{self, Bounded};
use super::door::Door;
use super::figures::FIGURES;
use super::{figures, files, origin};
use crate::api::listener::Peer;

/// What a call's path begins with.
const CALLS: &str = "/palimpsest.v1.";
/// How the pages write their calls. No form of another site can: it is not among the types that a
/// page may send elsewhere without asking first.
const GRPC_WEB: &str = "application/grpc-web+proto";

/// What every answer says of itself, whatever it is an answer to.
const HEADERS: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
         connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'; require-trusted-types-for 'script'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

/// Pages, and calls behind them.
#[derive(Clone, Debug)]
pub struct Console<S> {
    services: S,
    calls: GrpcWebService<S>,
    door: Arc<Door>,
}

impl<S: Clone> Console<S> {
    /// Behind this door, in front of these services.
    pub fn new(services: S, door: Door) -> Self {
        Self {
            calls: GrpcWebLayer::new().layer(services.clone()),
            services,
            door: Arc::new(door),
        }
    }
}

impl<S> Service<Request<Body>> for Console<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Each call waits for a clone of its own.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = match self.door.hosts.check(&request) {
            Err(why) => ready(Ok(refused(StatusCode::MISDIRECTED_REQUEST, why))).boxed(),
            Ok(()) if request.uri().path().starts_with(CALLS) => match self.admit(request) {
                Ok(request) => self.calls.clone().oneshot(request).boxed(),
                Err(refusal) => ready(Ok(refusal)).boxed(),
            },
            Ok(()) if request.uri().path().starts_with(FIGURES) => match self.asks(request) {
                Ok(head) => figure(self.services.clone(), head).map(Ok).boxed(),
                Err(refusal) => ready(Ok(refusal)).boxed(),
            },
            Ok(()) => ready(Ok(self.page(&request))).boxed(),
        };
        answer.map(|answer| answer.map(guarded)).boxed()
    }
}

impl<S> Console<S> {
    /// A call as it goes on, or the answer to what is none of ours.
    #[allow(clippy::result_large_err)] // an answer is an answer
    fn admit(&self, mut request: Request<Body>) -> Result<Request<Body>, Response<Body>> {
        if request.method() != Method::POST {
            return Err(not_allowed("POST"));
        }
        origin::check(&request).map_err(|why| refused(StatusCode::FORBIDDEN, why))?;
        let headers = request.headers();
        if headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes) != Some(GRPC_WEB.as_bytes())
        {
            let why = format!(
                "calls come here as content-type {GRPC_WEB}; programs use gRPC, at serve.listen"
            );
            return Err(refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
        }
        if content_length(headers).is_some_and(|length| length > body::LIMIT) {
            let why = format!("a call has at most {} bytes", body::LIMIT);
            return Err(refused(StatusCode::PAYLOAD_TOO_LARGE, why));
        }
        self.door.open(&mut request).map_err(call_refused)?;
        Ok(request.map(|body| Body::new(Bounded::new(body))))
    }

    /// The head of what asks for a figure, or the answer to what is none of ours.
    #[allow(clippy::result_large_err)] // an answer is an answer
    fn asks(&self, mut request: Request<Body>) -> Result<Parts, Response<Body>> {
        if request.method() != Method::GET {
            return Err(not_allowed("GET"));
        }
        origin::check(&request).map_err(|why| refused(StatusCode::FORBIDDEN, why))?;
        if let Err(status) = self.door.open(&mut request) {
            return Err(refused(
                StatusCode::UNAUTHORIZED,
                status.message().to_owned(),
            ));
        }
        Ok(request.into_parts().0)
    }

    /// A page, or a part of one.
    fn page(&self, request: &Request<Body>) -> Response<Body> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return not_allowed("GET, HEAD");
        }
        if request.uri().path() == "/sign-in.json" {
            let peer = request.extensions().get::<Peer>();
            let shown = peer.is_some_and(|peer| peer.certificate.is_some());
            return answer(
                StatusCode::OK,
                "application/json",
                self.door.sign_in(shown).into(),
            );
        }
        let Some(file) = files::at(request.uri().path()) else {
            return refused(StatusCode::NOT_FOUND, "there is no such file".to_owned());
        };
        let tag = file.tag();
        let known = request.headers().get(header::IF_NONE_MATCH);
        let mut page = match known.is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
            true => answer(StatusCode::NOT_MODIFIED, file.kind, Bytes::new()),
            false => answer(StatusCode::OK, file.kind, Bytes::from_static(file.content)),
        };
        // Asked for again each time, and sent when it has changed: pages and scripts of two
        // versions of the program never meet.
        let again = HeaderValue::from_static("no-cache");
        page.headers_mut().insert(header::CACHE_CONTROL, again);
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            page.headers_mut().insert(header::ETAG, tag);
        }
        page
    }
}

/// A figure, or why there is none.
async fn figure<S>(services: S, head: Parts) -> Response<Body>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Send,
    S::Future: Send,
{
    match figures::draw(services, &head).await {
        Ok(svg) => answer(StatusCode::OK, "image/svg+xml", svg.into()),
        Err((status, why)) => refused(status, why),
    }
}

fn content_length(headers: &HeaderMap) -> Option<usize> {
    let text = headers.get(header::CONTENT_LENGTH)?.to_str().ok()?;
    text.parse().ok()
}

/// An answer with what every answer says.
fn guarded(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

fn answer(status: StatusCode, kind: &'static str, content: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(content)));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Says why not, to whoever looks into it.
fn refused(status: StatusCode, why: String) -> Response<Body> {
    tracing::debug!(%status, why, "refused at the console");
    answer(
        status,
        "text/plain; charset=utf-8",
        format!("{why}\n").into(),
    )
}

fn not_allowed(methods: &'static str) -> Response<Body> {
    let why = format!("the method is none of {methods}");
    let mut response = refused(StatusCode::METHOD_NOT_ALLOWED, why);
    let allow = HeaderValue::from_static(methods);
    response.headers_mut().insert(header::ALLOW, allow);
    response
}

/// A status, as the pages read those of the services.
fn call_refused(status: Status) -> Response<Body> {
    let mut response = status.into_http::<Body>();
    let kind = HeaderValue::from_static(GRPC_WEB);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
