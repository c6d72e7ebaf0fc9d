//! A coordinator somewhere else, called in the name of the user who opened the door.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures::future::{BoxFuture, FutureExt};
use http_body_util::{BodyExt, Full};
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, HeaderName, Request, Response, Version, header};
use tower::{Service, ServiceExt};

use crate::api::status::{Reason, status};
use crate::auth::role;
use crate::client::{self, Client, Signed};

/// What of a call's head goes on. What else a browser says of itself, its pages and its user is not
/// the coordinator's business; who calls is said by the client.
const PASSED: [HeaderName; 3] = [
    header::CONTENT_TYPE,
    header::TE,
    HeaderName::from_static("grpc-timeout"),
];

/// The services of a coordinator, over a client with its user's credentials.
#[derive(Clone, Debug)]
pub struct Remote(Signed);

impl Remote {
    /// Of the coordinator that this client calls.
    pub fn new(client: &Client) -> Self {
        Self(client.signed())
    }
}

impl Service<Request<Body>> for Remote {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let coordinator = self.0.clone();
        async move {
            if role::method(request.uri().path()) == Some(role::CONNECT) {
                let why = "workers do not come through a console: start 'palimpsest worker'";
                return Ok(status(Reason::PermissionDenied, why, []).into_http());
            }
            let (mut head, body) = request.into_parts();
            let mut headers = HeaderMap::new();
            for name in PASSED {
                if let Some(value) = head.headers.remove(&name) {
                    headers.insert(name, value);
                }
            }
            head.headers = headers;
            head.extensions.clear();
            head.version = Version::HTTP_2;
            // Whole, as gRPC-Web sends no streams: what breaks off at its bounds is refused here, where
            // it is known why, and does not reach the coordinator as a stream that was reset.
            let body = match body.collect().await {
                Ok(body) => Body::new(Full::new(body.to_bytes())),
                Err(refusal) => return Ok(refusal.into_http()),
            };
            let answer = coordinator.oneshot(Request::from_parts(head, body)).await;
            Ok(match answer {
                Ok(answer) => answer.map(Body::new),
                Err(error) => {
                    let why = format!(
                        "no coordinator answers ({}): is it running?",
                        client::deepest(&error)
                    );
                    tonic::Status::unavailable(why).into_http()
                }
            })
        }
        .boxed()
    }
}
