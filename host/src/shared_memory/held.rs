//! What a plugin gave out: using it, and dropping it, runs the plugin's code, and the thread's slot
//! says so. It never says anything of its own: what is entered is [`threads`](super::threads)'
//! affair.

use std::{
    ops::Deref,
    pin::Pin,
    task::{Context, Poll},
};

use super::threads::{Activity, enter};

/// An object of a plugin generation. The generation is entered when it is dropped; whoever calls a
/// method of it enters it himself, and knows as what.
#[derive(Debug)]
pub struct Held<T> {
    /// Taken by `drop` only.
    object: Option<T>,
    plugin: u64,
}

impl<T> Held<T> {
    /// An object that the generation of this number gave out.
    pub fn new(object: T, plugin: u64) -> Self {
        Self {
            object: Some(object),
            plugin,
        }
    }

    /// The generation's number.
    pub fn plugin(&self) -> u64 {
        self.plugin
    }
}

impl<T> Deref for Held<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.object.as_ref().expect("only dropping takes it")
    }
}

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        // Absent where a future dropped itself at its end.
        if let Some(object) = self.object.take() {
            let _stay = enter(self.plugin, Activity::Drop);
            drop(object);
        }
    }
}

/// A future of a plugin generation, which is entered for each poll: between two of them the thread
/// does other things.
#[derive(Debug)]
#[must_use = "futures do nothing unless they are polled"]
pub struct HeldFuture<F> {
    future: Held<F>,
    activity: Activity,
}

impl<F> HeldFuture<F> {
    /// A future that does this for the generation of this number.
    pub fn new(future: F, plugin: u64, activity: Activity) -> Self {
        Self {
            future: Held::new(future, plugin),
            activity,
        }
    }
}

impl<F: Future + Unpin> Future for HeldFuture<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let _stay = enter(self.future.plugin, self.activity);
        let future = self.future.object.as_mut();
        let polled = Pin::new(future.expect("no future is polled after its end")).poll(context);
        if polled.is_ready() {
            // One stay is cheaper than two, and nobody needs it any more.
            self.future.object = None;
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]
    use std::{cell::RefCell, future::poll_fn, rc::Rc};

    use futures_util::future::poll_immediate;

    use super::{
        super::threads::{ThreadSlots, follow_in, of_this_process},
        *,
    };

    type Seen = Vec<Option<(u64, Activity)>>;

    /// What this thread does in which plugin.
    fn here() -> Option<(u64, Activity)> {
        let thread = u32::try_from(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
        let inside = of_this_process().unwrap().inside();
        let mut here = inside.filter(|inside| inside.thread == thread);
        here.next().map(|inside| (inside.plugin, inside.activity))
    }

    /// Notes where it is dropped.
    struct Noting(Rc<RefCell<Seen>>);

    impl Drop for Noting {
        fn drop(&mut self) {
            self.0.borrow_mut().push(here());
        }
    }

    #[tokio::test]
    async fn a_future_is_inside_while_it_is_polled_or_dropped_and_at_no_other_time() {
        follow_in(ThreadSlots::create().unwrap());
        let seen = Rc::new(RefCell::new(Seen::new()));
        let noting = Noting(Rc::clone(&seen));
        let never = Box::pin(poll_fn(move |_| -> Poll<()> {
            noting.0.borrow_mut().push(here());
            Poll::Pending
        }));
        let mut future = HeldFuture::new(never, 5, Activity::Filter);
        assert!(poll_immediate(&mut future).await.is_none());
        assert_eq!(here(), None);
        drop(future);
        assert_eq!(here(), None);
        assert_eq!(
            *seen.borrow(),
            [Some((5, Activity::Filter)), Some((5, Activity::Drop))]
        );
    }

    #[tokio::test]
    async fn a_future_that_ends_is_dropped_where_it_ended() {
        follow_in(ThreadSlots::create().unwrap());
        let seen = Rc::new(RefCell::new(Seen::new()));
        let noting = Noting(Rc::clone(&seen));
        let future = Box::pin(async move {
            let _noting = &noting;
            7
        });
        assert_eq!(HeldFuture::new(future, 6, Activity::Unload).await, 7);
        assert_eq!(*seen.borrow(), [Some((6, Activity::Unload))]);
    }
}
