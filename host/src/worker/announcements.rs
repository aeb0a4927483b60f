//! Tells the supervisor of each library before it is opened, and what is mapped afterwards, so that a
//! death can be laid at somebody's door. Whoever opens a library waits for the first, and never for
//! the second.

use std::time::Duration;

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::attachment::Told;
use crate::{crash, link::ToSupervisor, plugin::manager::Announcement};

/// When the supervisor is told what is mapped, after a library was announced.
const MAPPED_SOON: Duration = Duration::from_millis(20);

/// When it is told once more, after the last one was: opening it may take longer.
const MAPPED_LATER: Duration = Duration::from_secs(1);

/// Mappings in one message.
const MAPPINGS_AT_ONCE: usize = 256;

/// Passes on what is announced, until nobody can announce anything any more.
pub(super) async fn pass_on(
    mut announced: mpsc::UnboundedReceiver<Announcement>,
    tell: mpsc::UnboundedSender<Told>,
) {
    let mut last = Instant::now();
    let (mut soon, mut later) = (None, None);
    loop {
        let look_at = [soon, later].into_iter().flatten().min();
        tokio::select! {
            biased;
            announcement = announced.recv() => {
                let Some(Announcement { generation, heard }) = announcement else {
                    return;
                };
                let loading = ToSupervisor::Loading(generation);
                // Nobody listens only where this process is about to end.
                let _ = tell.send(Told::for_sure(loading, heard));
                last = Instant::now();
                // Where many are opened one after the other, each does not put the look off again.
                soon = soon.or(Some(last + MAPPED_SOON));
                later = Some(last + MAPPED_LATER);
            }
            () = sleep_until(look_at.unwrap_or(last)), if look_at.is_some() => {
                tell_mappings(&tell);
                let now = Instant::now();
                soon = Some(last + MAPPED_SOON).filter(|at| *at > now);
                later = later.filter(|at| *at > now);
            }
        }
    }
}

fn tell_mappings(tell: &mpsc::UnboundedSender<Told>) {
    let mappings = crash::mappings().unwrap_or_default();
    for (part, mappings) in mappings.chunks(MAPPINGS_AT_ONCE).enumerate() {
        let told = ToSupervisor::Mappings {
            first: part == 0,
            mappings: mappings.to_vec(),
        };
        let _ = tell.send(told.into());
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]

    use std::path::Path;

    use tokio::sync::oneshot;

    use super::*;
    use crate::crash::KnownGeneration;

    fn announcement(number: u64) -> Announcement {
        let (heard, _) = oneshot::channel();
        Announcement {
            generation: KnownGeneration::new(number, "say", "0.1.0", "d", Path::new("/dev/null")),
            heard,
        }
    }

    fn is_look(message: &ToSupervisor) -> bool {
        matches!(message, ToSupervisor::Mappings { first: true, .. })
    }

    /// What is told next, further parts of a look left out.
    async fn next(told: &mut mpsc::UnboundedReceiver<Told>) -> ToSupervisor {
        loop {
            match told.recv().await.unwrap().message {
                ToSupervisor::Mappings { first: false, .. } => {}
                message => return message,
            }
        }
    }

    #[tokio::test]
    async fn a_library_is_announced_at_once_while_mappings_of_the_one_before_are_still_to_be_told()
    {
        let (announce, announced) = mpsc::unbounded_channel();
        let (tell, mut told) = mpsc::unbounded_channel();
        tokio::spawn(pass_on(announced, tell));
        announce.send(announcement(1)).unwrap();
        let loading = told.recv().await.unwrap().message;
        assert!(matches!(loading, ToSupervisor::Loading(one) if one.number == 1));
        // What is mapped is told once, and will be again, a second after the first library.
        let mapped = told.recv().await.unwrap().message;
        assert!(is_look(&mapped), "{mapped:?}");
        announce.send(announcement(2)).unwrap();
        let loading = next(&mut told).await;
        assert!(
            matches!(&loading, ToSupervisor::Loading(two) if two.number == 2),
            "{loading:?}"
        );
        for _ in 0..2 {
            let mapped = next(&mut told).await;
            assert!(is_look(&mapped), "{mapped:?}");
        }
    }
}
