//! A request's body whose rest is read away when its answer is known before it has come whole. Else the connection would be
//! reset while the other side still sends, and the answer, that it is too large say, be lost with it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use futures_util::StreamExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// How long that is done.
const LINGER: Duration = Duration::from_secs(10);

/// The body of a request.
#[derive(Debug)]
pub struct Unread(Option<Incoming>);

impl Unread {
    pub fn new(body: Incoming) -> Self {
        Self(Some(body))
    }
}

impl Body for Unread {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.0 {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        if let (Some(body), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current())
            && !body.is_end_stream()
        {
            let rest = axum::body::Body::new(body).into_data_stream();
            runtime.spawn(tokio::time::timeout(LINGER, rest.for_each(|_| async {})));
        }
    }
}
