//! How long an answer may take: one limit for all who ask, so that nobody waits for ever for a server that has taken a
//! request and says nothing.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tower::BoxError;

/// For an answer to be there as a whole; of a watch, which goes on, for its begin.
pub(super) const ANSWER: Duration = Duration::from_secs(30);

/// The time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLate(pub(super) Duration);

impl fmt::Display for TooLate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer within {:?}", self.0)
    }
}

impl std::error::Error for TooLate {}

/// An answer's body, which has to come before an instant, if it has one.
pub(super) struct Limited<B> {
    body: Pin<Box<B>>,
    end: Option<Pin<Box<Sleep>>>,
    limit: Duration,
}

impl<B> Limited<B> {
    pub(super) fn new(body: B, end: Option<Instant>, limit: Duration) -> Self {
        Self {
            body: Box::pin(body),
            end: end.map(|end| Box::pin(sleep_until(end))),
            limit,
        }
    }
}

impl<B> Body for Limited<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let frame = self.body.as_mut().poll_frame(context);
        if frame.is_ready() {
            return frame.map_err(Into::into);
        }
        let limit = self.limit;
        match &mut self.end {
            Some(end) => end
                .as_mut()
                .poll(context)
                .map(|()| Some(Err(TooLate(limit).into()))),
            None => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
