//! What a call holds for as long as it goes on: a place among the streams of its principal, and the
//! right to be there, which is looked at again and again.
#![allow(clippy::disallowed_methods)] // rights end by the clock

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::{Frame, SizeHint};
use jiff::Timestamp;
use tokio::time::{Instant, Sleep};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::codegen::http::HeaderMap;

use super::status::{Reason, status};
use crate::auth::{Caller, Refusal, TokenHash, Tokens};
use crate::telemetry::metrics::REFUSALS;

/// How often the right of a call that goes on is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// How much of something each principal holds, over all connections; each address, where nobody is
/// asked who they are.
#[derive(Debug, Default)]
pub struct Holders(Mutex<HashMap<String, usize>>);

impl Holders {
    /// Takes a place, if the principal has fewer than `most`. It is free again when what comes back
    /// is dropped.
    pub fn take(self: &Arc<Self>, principal: &str, most: usize) -> Option<Place> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.get(principal).copied().unwrap_or(0);
        if count >= most {
            return None;
        }
        held.insert(principal.to_owned(), count + 1);
        Some(Place {
            holders: Arc::clone(self),
            principal: principal.to_owned(),
        })
    }
}

/// A place that a principal holds.
#[derive(Debug)]
pub struct Place {
    holders: Arc<Holders>,
    principal: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        let held = self.holders.0.lock();
        let mut held = held.unwrap_or_else(PoisonError::into_inner);
        match held.get_mut(&self.principal) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(held.remove(&self.principal)),
        }
    }
}

/// Why a call is let through, to be looked at again while it goes on.
#[derive(Debug)]
pub struct Right {
    caller: Caller,
    /// The token that was shown and the file that must have it; none with a certificate, which was
    /// verified when the connection was opened.
    token: Option<(TokenHash, Arc<Tokens>)>,
    /// Whether a half of the call was ended, because it is over.
    over: AtomicBool,
}

impl Right {
    /// The right of a caller.
    pub fn new(caller: Caller, token: Option<(TokenHash, Arc<Tokens>)>) -> Self {
        Self {
            caller,
            token,
            over: AtomicBool::new(false),
        }
    }

    fn check(&self) -> Result<(), Status> {
        let Some((token, tokens)) = &self.token else {
            return Ok(());
        };
        match tokens.holder(token, Timestamp::now()) {
            Ok(caller) if caller == self.caller => Ok(()),
            Ok(_) => Err(ended("the token was given to somebody else")),
            Err(Refusal::Unknown) => Err(ended("the token was revoked")),
            Err(Refusal::Expired) => Err(ended("the token has expired")),
        }
    }
}

fn ended(why: &str) -> Status {
    let message = format!("the call was ended: {why}");
    status(Reason::Unauthenticated, message, [])
}

/// Which half of a call a body is.
#[derive(Debug)]
enum Half {
    Request,
    /// With the call's place among the streams.
    Answer(#[allow(dead_code)] Place),
}

/// A body that ends when its call's right does: what a service then reads is an error, and what a
/// caller reads is the end with its reason.
#[derive(Debug)]
pub struct Watched {
    body: Body,
    half: Half,
    /// None where nobody is asked who they are.
    right: Option<Arc<Right>>,
    looked: Instant,
    /// Wakes a body on which nothing happens; made when it first has to wait.
    wake: Option<Pin<Box<Sleep>>>,
    over: bool,
}

impl Watched {
    /// What a caller sends.
    pub fn request(body: Body, right: Arc<Right>) -> Self {
        Self::new(body, Some(right), Half::Request)
    }

    /// What a caller gets.
    pub fn answer(body: Body, right: Option<Arc<Right>>, place: Place) -> Self {
        Self::new(body, right, Half::Answer(place))
    }

    fn new(body: Body, right: Option<Arc<Right>>, half: Half) -> Self {
        Self {
            body,
            half,
            right,
            looked: Instant::now(),
            wake: None,
            over: false,
        }
    }

    /// Whether the other half was ended.
    fn is_over(&self) -> bool {
        let right = self.right.as_ref();
        right.is_some_and(|right| right.over.load(Ordering::Acquire))
    }

    /// The frame with which the body ends, if its right is over.
    fn look(&mut self) -> Option<Result<Frame<Bytes>, Status>> {
        self.looked = Instant::now();
        let right = self.right.as_ref()?;
        let status = right.check().err()?;
        let principal = right.caller.principal.clone();
        self.over = true;
        right.over.store(true, Ordering::Release);
        // What the service had behind it is let go at once.
        self.body = Body::empty();
        if let Half::Request = self.half {
            return Some(Err(status));
        }
        REFUSALS.add(["unauthenticated"], 1);
        tracing::info!(principal, reason = status.message(), "a stream was ended");
        let mut trailers = HeaderMap::new();
        Some(
            status
                .add_header(&mut trailers)
                .map(|()| Frame::trailers(trailers)),
        )
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.over {
            return Poll::Ready(None);
        }
        if this.right.is_none() {
            return Pin::new(&mut this.body).poll_frame(context);
        }
        // A body that always has something never waits for its clock.
        if this.looked.elapsed() >= EVERY
            && let Some(end) = this.look()
        {
            return Poll::Ready(Some(end));
        }
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            let ends = !matches!(&frame, Some(Ok(frame)) if frame.is_data());
            // A service whose request was ended ends its answer, and may say that all went well.
            if ends
                && this.is_over()
                && let Some(end) = this.look()
            {
                return Poll::Ready(Some(end));
            }
            return Poll::Ready(frame);
        }
        loop {
            let at = this.looked + EVERY;
            let wake = this
                .wake
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
            ready!(wake.as_mut().poll(context));
            if let Some(end) = this.look() {
                return Poll::Ready(Some(end));
            }
            let next = this.looked + EVERY;
            if let Some(wake) = &mut this.wake {
                wake.as_mut().reset(next);
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::auth::{self, Role};

    #[test]
    fn a_principal_holds_so_many_places_and_no_more() {
        let holders = Arc::new(Holders::default());
        let held: Vec<Place> = (0..3).map(|_| holders.take("ada", 3).unwrap()).collect();
        assert!(holders.take("ada", 3).is_none());
        assert!(holders.take("bob", 3).is_some());
        drop(held);
        assert!(holders.0.lock().unwrap().is_empty());
        assert!(holders.take("ada", 3).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_soon_after_its_token_was_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let caller = Caller {
            role: Role::Viewer,
            principal: "bob".to_owned(),
        };
        let token = auth::issue(&path, &caller, None).unwrap();
        let tokens = Arc::new(Tokens::open(&path).unwrap());
        let shown = Some((TokenHash::of(&token), tokens));
        let right = Arc::new(Right::new(caller, shown));
        let holders = Arc::new(Holders::default());
        let silent = || {
            let nothing = futures::stream::pending::<Result<Frame<Bytes>, Status>>();
            Body::new(http_body_util::StreamBody::new(nothing))
        };
        let mut request = Watched::request(silent(), right.clone());
        let place = holders.take("bob", 1).unwrap();
        let mut answer = Watched::answer(silent(), Some(Arc::clone(&right)), place);
        let quiet = tokio::time::timeout(Duration::from_secs(10), answer.frame()).await;
        assert!(quiet.is_err(), "a right that stands ends nothing");
        std::fs::write(&path, "").unwrap();
        let last = answer.frame().await.unwrap().unwrap();
        let trailers = last.into_trailers().unwrap();
        assert_eq!(trailers["grpc-status"], "16");
        assert!(answer.frame().await.is_none());
        let error = request.frame().await.unwrap().unwrap_err();
        assert_eq!(error.code(), tonic::Code::Unauthenticated);
        drop(answer);
        // The service ends its answer well, because its request was ended: its caller is told all the
        // same.
        let well = Frame::trailers(HeaderMap::new());
        let well = futures::stream::iter([Ok::<Frame<Bytes>, Status>(well)]);
        let well = Body::new(http_body_util::StreamBody::new(well));
        let place = holders.take("bob", 1).unwrap();
        let mut answer = Watched::answer(well, Some(right), place);
        let last = answer.frame().await.unwrap().unwrap();
        assert_eq!(last.into_trailers().unwrap()["grpc-status"], "16");
    }
}
