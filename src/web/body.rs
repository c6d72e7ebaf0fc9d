//! The body of a call, which is bounded: in bytes, and in time. HTTP/1.1 has no window that a sender
//! could be held to, and a server's timeouts are for its own answers.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::{Frame, SizeHint};
use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Bytes;

use crate::api::server::MESSAGE_LIMIT;

/// Most bytes of a call: the largest message, and what frames it.
pub const LIMIT: usize = MESSAGE_LIMIT + 5;
/// How long a call may take to be said.
const TIME: Duration = Duration::from_secs(30);

/// A body that ends with an error where it goes beyond its bounds.
#[derive(Debug)]
pub struct Bounded {
    body: Body,
    left: usize,
    time: Pin<Box<Sleep>>,
}

impl Bounded {
    /// Of a call that begins now.
    pub fn new(body: Body) -> Self {
        Self {
            body,
            left: LIMIT,
            time: Box::pin(tokio::time::sleep(TIME)),
        }
    }
}

impl http_body::Body for Bounded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if polled.is_pending() {
            ready!(self.time.as_mut().poll(context));
            let why = format!("the call was not said in {TIME:?}");
            return Poll::Ready(Some(Err(Status::deadline_exceeded(why))));
        }
        let frame = ready!(polled);
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            match self.left.checked_sub(data.len()) {
                Some(left) => self.left = left,
                None => {
                    let why = format!("a call has at most {LIMIT} bytes");
                    return Poll::Ready(Some(Err(Status::resource_exhausted(why))));
                }
            }
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, Full, StreamBody};

    #[tokio::test(start_paused = true)]
    async fn a_body_ends_at_its_bounds() {
        let of = |bytes: usize| Bounded::new(Body::new(Full::new(Bytes::from(vec![0; bytes]))));
        let whole = of(LIMIT).collect().await.unwrap();
        assert_eq!(whole.to_bytes().len(), LIMIT);
        let refusal = of(LIMIT + 1).collect().await.unwrap_err();
        assert_eq!(refusal.code(), tonic::Code::ResourceExhausted);
        let silent = StreamBody::new(futures::stream::pending::<Result<Frame<Bytes>, Status>>());
        let refusal = Bounded::new(Body::new(silent)).collect().await.unwrap_err();
        assert_eq!(refusal.code(), tonic::Code::DeadlineExceeded);
    }
}
