//! Which call the plugin code on this thread runs for, so that what it logs carries the request's
//! number and its route without the plugin's doing anything.
//!
//! It is known while a plugin's future is polled or dropped, and at no other time: background tasks
//! run for no call. It costs two writes to the thread's own memory for each poll.

use std::{
    cell::Cell,
    pin::Pin,
    task::{Context, Poll},
};

/// A call, as far as the log names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CurrentCall {
    /// The gateway's number of it.
    pub id: u32,
    /// The configuration token that it came with.
    pub token: u32,
}

thread_local! {
    static CURRENT: Cell<Option<CurrentCall>> = const { Cell::new(None) };
}

impl CurrentCall {
    /// The call that this thread runs plugin code for.
    pub fn of_this_thread() -> Option<Self> {
        // Nothing while the thread is being torn down.
        CURRENT.try_with(Cell::get).ok().flatten()
    }

    fn enter(self) -> Entered {
        Entered {
            outer: CURRENT.replace(Some(self)),
        }
    }
}

/// Gives the thread back to what it was doing before.
struct Entered {
    outer: Option<CurrentCall>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.outer);
    }
}

/// A plugin's future that runs for a call.
#[derive(Debug)]
#[must_use = "futures do nothing unless they are polled"]
pub struct InCall<F> {
    /// Taken by `drop` only.
    future: Option<F>,
    call: CurrentCall,
}

impl<F> InCall<F> {
    /// A future that runs for this call.
    pub fn new(call: CurrentCall, future: F) -> Self {
        Self {
            future: Some(future),
            call,
        }
    }
}

impl<F: Future + Unpin> Future for InCall<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let _entered = self.call.enter();
        let future = self.future.as_mut().expect("only dropping takes it");
        Pin::new(future).poll(context)
    }
}

impl<F> Drop for InCall<F> {
    fn drop(&mut self) {
        let _entered = self.call.enter();
        self.future = None;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        sync::{Arc, Mutex},
    };

    use futures_util::future::poll_immediate;

    use super::*;

    const CALL: CurrentCall = CurrentCall { id: 7, token: 8 };

    /// Notes the call that it is dropped in.
    struct Noting(Arc<Mutex<Vec<Option<CurrentCall>>>>);

    impl Drop for Noting {
        fn drop(&mut self) {
            let mut seen = self.0.lock().expect("nothing panics while it is held");
            seen.push(CurrentCall::of_this_thread());
        }
    }

    #[tokio::test]
    async fn a_future_is_in_its_call_while_it_is_polled_or_dropped_and_at_no_other_time() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noting = Noting(Arc::clone(&seen));
        let waiting = Box::pin(poll_fn(move |_| -> Poll<()> {
            let _kept = &noting;
            assert_eq!(CurrentCall::of_this_thread(), Some(CALL));
            Poll::Pending
        }));
        let mut future = InCall::new(CALL, waiting);
        assert!(poll_immediate(&mut future).await.is_none());
        assert_eq!(CurrentCall::of_this_thread(), None);
        drop(future);
        assert_eq!(CurrentCall::of_this_thread(), None);
        let seen = seen.lock().expect("nothing panics while it is held");
        assert_eq!(*seen, [Some(CALL)]);
    }
}
