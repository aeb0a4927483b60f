//! The body of an answer, which says when it is over: only then is a request done.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use hyper::body::{Bytes, Frame, SizeHint};

use super::answer::Body;
use super::event::{Event, Listener, RequestDone};

/// A body that counts what is taken of it.
pub(super) struct Counted {
    body: Body,
    began: Instant,
    done: RequestDone,
    listener: Arc<Listener>,
}

impl Counted {
    pub(super) fn new(
        body: Body,
        began: Instant,
        done: RequestDone,
        listener: Arc<Listener>,
    ) -> Self {
        Self {
            body,
            began,
            done,
            listener,
        }
    }
}

impl hyper::body::Body for Counted {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            let length = frame.data_ref().map_or(0, Bytes::len);
            self.done.sent += u64::try_from(length).unwrap_or(0);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.done.took = self.began.elapsed();
        (self.listener)(Event::Request(&self.done));
    }
}
