//! Drives one plugin's future to its end, or to its deadline: puts its questions to the gateway and
//! goes on when they are answered.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::{Either, poll_immediate, select};
use plugin_abi::abi::{Outcome, ROption, Verdict};
use tokio::time::Instant;

use super::{
    call::CallBox,
    gateway::{Gateway, Gone},
    questions::{Question, Questions},
};

/// How a plugin's part ended.
pub(super) enum Ended {
    /// The plugin came to an end.
    Verdict {
        /// Absent where it did not give it back.
        call: Option<CallBox>,
        verdict: Verdict,
        at: Instant,
    },
    /// It did not, in its time.
    Deadline,
    /// It could not begin in its time: no thread of the pool was free.
    NoThread,
    /// The gateway hung up meanwhile.
    GatewayGone,
}

enum Event {
    Finished(Outcome),
    Asks(Question),
}

/// Polls `future` until it ends, its deadline passes or the gateway is gone. A future that is given
/// up is dropped here; what it touches belongs to it. What comes after the deadline comes too late,
/// also from a plugin that kept its thread until then.
///
/// Where the task has polled it just now (`polled`), its first question is put before it is polled again.
pub(super) async fn drive<G: Gateway>(
    mut future: impl Future<Output = Outcome> + Unpin,
    polled: bool,
    questions: &Arc<Questions>,
    gateway: &mut G,
    deadline: Instant,
) -> Ended {
    let mut polled = polled;
    loop {
        let mut next = poll_fn(|context| {
            if std::mem::take(&mut polled)
                && let Some(question) = questions.next_for_gateway(context.waker())
            {
                return Poll::Ready(Event::Asks(question));
            }
            next_event(&mut future, questions, context)
        });
        // A plugin that never waits is through with its first poll, and needs no timer.
        let event = match poll_immediate(&mut next).await {
            Some(event) => event,
            None => match tokio::time::timeout_at(deadline, next).await {
                Ok(event) => event,
                Err(_) => return Ended::Deadline,
            },
        };
        let question = match event {
            Event::Finished(outcome) => return verdict(outcome, deadline),
            Event::Asks(question) => question,
        };
        // The plugin goes on meanwhile: it may wait for other things too, and give this one up.
        let asking = pin!(ask(&question, questions, gateway, deadline));
        match select(asking, &mut future).await {
            Either::Left((Ok(()), _)) => {}
            Either::Left((Err(ended), _)) => return ended,
            Either::Right((outcome, _)) => {
                questions.give_up(&question);
                return verdict(outcome, deadline);
            }
        }
    }
}

/// How a plugin's part ended that has come to an end.
pub(super) fn verdict(outcome: Outcome, deadline: Instant) -> Ended {
    let at = Instant::now();
    if at > deadline {
        return Ended::Deadline;
    }
    let call = match outcome.call {
        ROption::RSome(call) => CallBox::from_object(call),
        ROption::RNone => None,
    };
    Ended::Verdict {
        call,
        verdict: outcome.verdict,
        at,
    }
}

/// Puts a question to the gateway and records the answer.
pub(super) async fn ask<G: Gateway>(
    question: &Question,
    questions: &Questions,
    gateway: &mut G,
    deadline: Instant,
) -> Result<(), Ended> {
    let began = Instant::now();
    let asked = tokio::time::timeout_at(deadline, gateway.ask(question)).await;
    questions.add_waited(began.elapsed());
    match asked {
        Ok(Ok(answer)) => {
            questions.answer(question.clone(), answer);
            Ok(())
        }
        Ok(Err(Gone)) => Err(Ended::GatewayGone),
        Err(_) => {
            questions.give_up(question);
            Err(Ended::Deadline)
        }
    }
}

fn next_event(
    future: &mut (impl Future<Output = Outcome> + Unpin),
    questions: &Questions,
    context: &mut Context<'_>,
) -> Poll<Event> {
    if let Poll::Ready(outcome) = Pin::new(future).poll(context) {
        return Poll::Ready(Event::Finished(outcome));
    }
    match questions.next_for_gateway(context.waker()) {
        Some(question) => Poll::Ready(Event::Asks(question)),
        None => Poll::Pending,
    }
}
