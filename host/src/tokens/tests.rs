//! What the table promises, alone and with other workers' journals.

#![allow(clippy::unwrap_used, reason = "a test fails where an unwrap does")]

use super::*;

fn tokens(first: u32, max_tokens: usize) -> (Tokens, mpsc::UnboundedReceiver<Arc<Token>>) {
    let (to_compile, compiling) = mpsc::unbounded_channel();
    let bounds = Bounds::new(max_tokens, Duration::from_secs(10));
    let tokens = Tokens::with(Numbers::own(first), None, bounds, to_compile);
    (tokens, compiling)
}

fn conf(key: &str, value: &str) -> Prepared {
    Prepared {
        key: key.as_bytes().into(),
        plugins: [PluginConf {
            name: b"say"[..].into(),
            value: value.as_bytes().into(),
        }]
        .into(),
    }
}

#[test]
fn the_same_key_and_configuration_get_the_same_token() {
    let (tokens, mut compiling) = tokens(7, 10);
    let now = Instant::now();
    let first = tokens.prepare(conf("route#1#pre#1", "a"), now).unwrap();
    assert_eq!(tokens.prepare(conf("route#1#pre#1", "a"), now), Some(first));
    assert_ne!(tokens.prepare(conf("route#1#pre#2", "a"), now), Some(first));
    assert_ne!(tokens.prepare(conf("route#1#pre#1", "b"), now), Some(first));
    assert_eq!(compiling.try_recv().unwrap().number(), first);
    assert_eq!(compiling.len(), 2, "each new token is compiled once");
}

#[test]
fn numbers_pass_over_zero_where_they_wrap() {
    let (tokens, _compiling) = tokens(u32::MAX, 10);
    let now = Instant::now();
    assert_eq!(tokens.prepare(conf("a#1", ""), now), Some(u32::MAX));
    assert_eq!(tokens.prepare(conf("b#1", ""), now), Some(1));
}

#[test]
fn a_token_lives_one_fifth_longer_than_the_gateways_memory_counted_from_its_last_use() {
    let (tokens, _compiling) = tokens(7, 10);
    let start = Instant::now();
    let number = tokens.prepare(conf("a#1", ""), start).unwrap();
    let later = start + Duration::from_secs(11);
    assert!(tokens.find(number, later).is_some());
    assert!(
        tokens
            .find(number, later + Duration::from_secs(11))
            .is_some()
    );
    let much_later = later + Duration::from_secs(11 + 13);
    assert!(tokens.find(number, much_later).is_none());
    assert_eq!(tokens.drop_expired(much_later), 1);
    assert!(tokens.live().is_empty());
}

#[test]
fn a_full_table_drops_superseded_configurations_before_live_ones() {
    let (tokens, _compiling) = tokens(7, 3);
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let oldest_but_live = tokens.prepare(conf("b#1", ""), at(0)).unwrap();
    let superseded = tokens.prepare(conf("a#1", ""), at(1)).unwrap();
    let newer = tokens.prepare(conf("a#2", ""), at(2)).unwrap();
    let newest = tokens.prepare(conf("c#1", ""), at(3)).unwrap();
    assert!(tokens.find(superseded, at(3)).is_none());
    for number in [oldest_but_live, newer, newest] {
        assert!(tokens.find(number, at(3)).is_some());
    }
}

#[test]
fn configurations_are_bounded_in_bytes_too() {
    let (mut tokens, _compiling) = tokens(7, 10);
    tokens.bounds.max_bytes = 100;
    let now = Instant::now();
    let forty = "x".repeat(40);
    let first = tokens.prepare(conf("a#1", &forty), now).unwrap();
    let later = now + Duration::from_secs(1);
    let second = tokens.prepare(conf("b#1", &forty), later).unwrap();
    let third = tokens.prepare(conf("c#1", &forty), later).unwrap();
    assert!(tokens.find(first, later).is_none());
    assert!(tokens.find(second, later).is_some() && tokens.find(third, later).is_some());
}

#[test]
fn a_number_is_never_given_twice() {
    let (tokens, _compiling) = tokens(7, 10);
    tokens.making.lock().numbers = Numbers::Own { next: 7, unused: 1 };
    let now = Instant::now();
    assert!(tokens.prepare(conf("a#1", ""), now).is_some());
    assert_eq!(tokens.prepare(conf("b#1", ""), now), None);
}

#[test]
fn two_processes_start_at_different_numbers() {
    let starts: std::collections::HashSet<u32> = (0..8).map(|_| first_number()).collect();
    assert!(starts.len() > 1 && !starts.contains(&0));
}

/// What a supervisor sees of a worker.
struct Worker {
    tokens: Tokens,
    journal: OwnedFd,
    renewed: mpsc::UnboundedReceiver<OwnedFd>,
    compiling: mpsc::UnboundedReceiver<Arc<Token>>,
}

impl Worker {
    fn start(numbers: &ConnectionSlots, max_tokens: usize) -> Self {
        let (to_compile, compiling) = mpsc::unbounded_channel();
        let (renewed_to, renewed) = mpsc::unbounded_channel();
        let journal = Journal::create().unwrap();
        Self {
            journal: journal.file().try_clone_to_owned().unwrap(),
            tokens: Tokens::outliving(
                Outliving {
                    numbers: numbers.clone(),
                    journal,
                    renewed: renewed_to,
                },
                Bounds::new(max_tokens, Duration::from_secs(10)),
                to_compile,
            ),
            renewed,
            compiling,
        }
    }

    fn prepare(&self, key: &str, value: &str) -> u32 {
        let prepared = conf(key, value);
        self.tokens.prepare(prepared, Instant::now()).unwrap()
    }

    fn reader(&self) -> Reader {
        Reader::new(self.journal.try_clone().unwrap())
    }

    fn key_of(&self, number: u32) -> Option<String> {
        let token = self.tokens.find(number, Instant::now())?;
        Some(token.key().into_owned())
    }
}

fn numbers() -> ConnectionSlots {
    ConnectionSlots::create(1, u32::MAX - 1).unwrap()
}

#[test]
fn the_next_worker_has_the_tokens_of_one_that_died_under_their_numbers_and_in_their_order() {
    let numbers = numbers();
    let first = Worker::start(&numbers, 10);
    // The numbers go round in between: their order is not that in which they were given.
    let old = first.prepare("route#1#pre#1", "a");
    let other = first.prepare("route#2#pre#1", "a");
    let new = first.prepare("route#1#pre#2", "b");
    assert!(old > new);

    let mut second = Worker::start(&numbers, 10);
    let restored = second.tokens.restore(vec![first.reader()], Instant::now());
    assert_eq!((restored, second.compiling.len()), (3, 3));
    assert_eq!(second.key_of(old).unwrap(), "route#1#pre#1");
    assert_eq!(second.prepare("route#1#pre#2", "b"), new);
    let newest = |number| {
        let token = second.tokens.find(number, Instant::now()).unwrap();
        second.tokens.is_newest(&token)
    };
    assert!(newest(new) && newest(other) && !newest(old));
    let next = second.prepare("route#3#pre#1", "a");
    assert!(![old, other, new].contains(&next));
    assert_eq!(second.compiling.blocking_recv().unwrap().number(), old);

    let third = Worker::start(&numbers, 10);
    let journals = vec![first.reader(), second.reader()];
    assert_eq!(third.tokens.restore(journals, Instant::now()), 4);
    assert_eq!(third.key_of(next).unwrap(), "route#3#pre#1");
}

#[test]
fn every_token_that_was_answered_is_in_the_journal_however_many_ask_at_once() {
    let numbers = numbers();
    let first = Worker::start(&numbers, 1_000);
    let keys: Vec<String> = (0..100).map(|number| format!("route#{number}#1")).collect();
    let answers: Vec<Vec<u32>> = std::thread::scope(|scope| {
        let prepare_all = || keys.iter().map(|key| first.prepare(key, "a")).collect();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(prepare_all)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(answers.iter().all(|given| *given == answers[0]));
    let second = Worker::start(&numbers, 1_000);
    assert_eq!(
        second.tokens.restore(vec![first.reader()], Instant::now()),
        100
    );
    for (key, number) in keys.iter().zip(&answers[0]) {
        assert_eq!(second.key_of(*number).as_ref(), Some(key));
    }
}

#[test]
fn during_a_hand_over_each_worker_knows_what_the_other_has_just_given() {
    let numbers = numbers();
    let old = Worker::start(&numbers, 10);
    let before = old.prepare("route#1#pre#1", "a");
    let new = Worker::start(&numbers, 10);
    assert_eq!(new.tokens.follow(old.reader(), Instant::now()), 1);
    old.tokens.follow(new.reader(), Instant::now());

    let late = old.prepare("route#2#pre#1", "a");
    assert_eq!(new.key_of(late).unwrap(), "route#2#pre#1");
    let later = old.prepare("route#3#pre#1", "a");
    assert_eq!(new.prepare("route#3#pre#1", "a"), later);
    let by_new = new.prepare("route#4#pre#1", "a");
    assert_eq!(old.key_of(by_new).unwrap(), "route#4#pre#1");
    assert_eq!(old.prepare("route#4#pre#1", "a"), by_new);
    assert_eq!(new.key_of(by_new.wrapping_add(100)), None);

    let last = old.prepare("route#5#pre#1", "a");
    new.tokens.follow_nobody(Instant::now());
    let unknown = old.prepare("route#6#pre#1", "a");
    let known = [before, late, later, by_new, last, unknown].map(|number| new.key_of(number));
    assert_eq!(known.iter().flatten().count(), 5);
    let third = Worker::start(&numbers, 10);
    third.tokens.restore(vec![new.reader()], Instant::now());
    assert!(
        [before, late, later, by_new, last]
            .iter()
            .all(|number| third.key_of(*number).is_some())
    );
}

#[test]
fn a_configuration_that_two_workers_named_at_once_keeps_both_tokens() {
    let numbers = numbers();
    let (one, other) = (Worker::start(&numbers, 10), Worker::start(&numbers, 10));
    let given = [
        one.prepare("route#1#1", "a"),
        other.prepare("route#1#1", "a"),
    ];
    assert_ne!(given[0], given[1]);
    let next = Worker::start(&numbers, 10);
    let journals = vec![one.reader(), other.reader()];
    assert_eq!(next.tokens.restore(journals, Instant::now()), 2);
    assert!(given.iter().all(|number| next.key_of(*number).is_some()));
    assert!(given.contains(&next.prepare("route#1#1", "a")));
}

#[test]
fn what_comes_from_a_journal_keeps_to_the_bounds() {
    let numbers = numbers();
    let first = Worker::start(&numbers, 10);
    let superseded = first.prepare("route#1#pre#1", "a");
    let live = [
        first.prepare("route#2#pre#1", "a"),
        first.prepare("route#1#pre#2", "a"),
        first.prepare("route#3#pre#1", "a"),
    ];
    let second = Worker::start(&numbers, 3);
    second.tokens.restore(vec![first.reader()], Instant::now());
    assert_eq!(second.key_of(superseded), None);
    assert!(live.iter().all(|number| second.key_of(*number).is_some()));
}

#[test]
fn a_journal_that_is_mostly_about_tokens_that_are_gone_is_written_anew() {
    let numbers = numbers();
    let mut first = Worker::start(&numbers, 4);
    let value = "x".repeat(1 << 20);
    let mut given = Vec::new();
    while first.renewed.is_empty() {
        let key = format!("route#1#pre#{}", given.len());
        given.push(first.prepare(&key, &value));
        assert!(given.len() <= 17, "it has grown without bound");
    }
    let after = first.prepare("route#2#pre#1", "a");
    let read = |journal: Reader| {
        let next = Worker::start(&numbers, 1_000);
        next.tokens.restore(vec![journal], Instant::now());
        let known = given
            .iter()
            .filter(|number| next.key_of(**number).is_some());
        (known.count(), next.key_of(after).is_some())
    };
    assert_eq!(
        read(first.reader()),
        (given.len(), true),
        "the old one is still written"
    );

    let renewed = first.renewed.blocking_recv().unwrap();
    let bytes = rustix::fs::fstat(&renewed).unwrap().st_size;
    assert!(bytes < 5 << 20, "{bytes}");
    first.journal = renewed;
    assert_eq!(read(first.reader()), (4, true));
    let old = first.reader();
    first.tokens.journal_is_passed_on();
    let last = first.prepare("route#3#pre#1", "a");
    let next = Worker::start(&numbers, 10);
    next.tokens.restore(vec![old], Instant::now());
    assert!(next.key_of(last).is_some(), "the new one is");
}

#[test]
fn without_a_supervisor_nothing_is_followed_and_nothing_restored() {
    let (tokens, _compiling) = tokens(7, 10);
    let now = Instant::now();
    assert_eq!(tokens.restore(Vec::new(), now), 0);
    tokens.journal_is_passed_on();
    tokens.follow_nobody(now);
    assert!(tokens.find(7, now).is_none());
    assert_eq!(tokens.prepare(conf("a#1", ""), now), Some(7));
}
