//! Bounds of values, and how two calls of a request find each other.

use super::*;

const DONE: ValueStatus = ValueStatus::DONE;

fn kept(store: &KeptValues, id: &[u8], name: &[u8], now: Instant) -> Option<Vec<u8>> {
    let mut call = CallValues::default();
    assert_eq!(call.load(store, id, now), DONE);
    call.get(name).map(<[u8]>::to_vec)
}

fn keep(store: &KeptValues, id: &[u8], name: &[u8], value: &[u8], now: Instant) {
    let mut call = CallValues::default();
    assert_eq!(call.load(store, id, now), DONE);
    assert_eq!(call.set(name, value, true), DONE);
    call.leave(store, id, false, now);
}

#[test]
fn a_call_has_so_many_values_and_bytes_and_no_more() {
    let mut call = CallValues::default();
    for number in 0..MAX_VALUES {
        assert_eq!(call.set(number.to_string().as_bytes(), b"", false), DONE);
    }
    assert_eq!(call.set(b"more", b"", false), ValueStatus::FULL);
    assert_eq!(call.set(b"0", b"changed", false), DONE);
    call.remove(b"1");
    assert_eq!(call.set(b"more", b"", false), DONE);

    let mut call = CallValues::default();
    let longest = vec![b'x'; MAX_VALUE_BYTES - 1];
    assert_eq!(call.set(b"n", &longest, false), DONE);
    assert_eq!(call.set(b"m", b"", false), ValueStatus::FULL);
    assert_eq!(
        call.set(b"n", &[&longest[..], b"x"].concat(), false),
        ValueStatus::FULL
    );
    assert_eq!(call.get(b"n"), Some(&longest[..]), "nothing has changed");
    assert_eq!(call.set(b"n", b"short", false), DONE);
    assert_eq!(call.set(b"m", b"", false), DONE);
}

#[test]
fn what_is_kept_reaches_later_calls_of_the_same_request_and_of_no_other() {
    let (store, now) = (KeptValues::default(), Instant::now());
    let mut first = CallValues::default();
    assert_eq!(first.set(b"local", b"1", false), DONE);
    assert_eq!(first.set(b"kept", b"2", true), DONE);
    assert_eq!(
        kept(&store, b"id", b"kept", now),
        None,
        "the call has not ended"
    );
    first.leave(&store, b"id", false, now);
    assert_eq!(kept(&store, b"id", b"kept", now), Some(b"2".to_vec()));
    assert_eq!(kept(&store, b"id", b"local", now), None);
    assert_eq!(kept(&store, b"other", b"kept", now), None);
}

#[test]
fn a_later_call_adds_to_what_is_kept_changes_it_and_takes_it_away() {
    let (store, now) = (KeptValues::default(), Instant::now());
    keep(&store, b"id", b"a", b"1", now);
    keep(&store, b"id", b"b", b"2", now);
    let mut third = CallValues::default();
    assert_eq!(third.load(&store, b"id", now), DONE);
    assert_eq!(third.set(b"a", b"3", false), DONE);
    third.remove(b"b");
    third.leave(&store, b"id", false, now);
    assert_eq!(kept(&store, b"id", b"a", now), Some(b"3".to_vec()));
    assert_eq!(kept(&store, b"id", b"b", now), None);
}

#[test]
fn the_last_call_of_a_request_leaves_nothing() {
    let (store, now) = (KeptValues::default(), Instant::now());
    keep(&store, b"id", b"a", b"1", now);
    let mut last = CallValues::default();
    assert_eq!(last.load(&store, b"id", now), DONE);
    last.leave(&store, b"id", true, now);
    assert_eq!(store.counts(), (0, 0));
}

#[test]
fn a_request_without_a_number_of_its_own_is_linked_to_nothing() {
    use super::super::questions::{Answer, Question};
    for answer in [
        Answer::Absent,
        Answer::Value(Box::default()),
        Answer::Value(vec![b'x'; MAX_ID_BYTES + 1].into()),
    ] {
        let questions = Questions::default();
        questions.answer(Question::Variable(REQUEST_ID.into()), answer);
        let mut call = CallValues::default();
        let linked = ValueStatus::NOT_LINKED;
        assert_eq!(call.load_for_call(&questions), linked);
        assert_eq!(call.change(&questions, b"n", Some(b"v"), true), linked);
        assert_eq!(call.change(&questions, b"n", Some(b"v"), false), DONE);
    }
}

#[test]
fn values_are_kept_for_so_long_and_no_longer() {
    let (store, now) = (KeptValues::default(), Instant::now());
    keep(&store, b"id", b"a", b"1", now);
    let almost = now + KEPT_FOR - Duration::from_millis(1);
    assert_eq!(kept(&store, b"id", b"a", almost), Some(b"1".to_vec()));
    assert_eq!(kept(&store, b"id", b"a", now + KEPT_FOR), None);
    keep(&store, b"next", b"a", b"1", now + KEPT_FOR);
    assert_eq!(
        store.counts(),
        (1, 0),
        "it is forgotten, and not counted as lost"
    );
}

#[test]
fn beyond_so_many_requests_those_that_were_kept_first_go_first() {
    let (store, now) = (KeptValues::default(), Instant::now());
    for number in 0..=MAX_KEPT_REQUESTS {
        keep(&store, number.to_string().as_bytes(), b"a", b"1", now);
    }
    assert_eq!(store.counts(), (MAX_KEPT_REQUESTS, 1));
    assert_eq!(kept(&store, b"0", b"a", now), None);
    assert_eq!(kept(&store, b"1", b"a", now), Some(b"1".to_vec()));
}

#[test]
fn beyond_so_many_bytes_those_that_were_kept_first_go_first() {
    let (store, now) = (KeptValues::default(), Instant::now());
    let value = vec![b'x'; MAX_VALUE_BYTES - 1];
    let fit = MAX_KEPT_BYTES / MAX_VALUE_BYTES - 1;
    for number in 0..fit + 8 {
        keep(&store, number.to_string().as_bytes(), b"a", &value, now);
    }
    let (requests, dropped) = store.counts();
    assert!(requests <= fit + 1 && dropped >= 7, "{requests} {dropped}");
    assert_eq!(kept(&store, b"0", b"a", now), None);
}

#[test]
fn a_request_that_keeps_again_and_again_takes_one_place() {
    let (store, now) = (KeptValues::default(), Instant::now());
    keep(&store, b"first", b"a", b"1", now);
    for _ in 0..3 * MAX_KEPT_REQUESTS {
        let again = now + Duration::from_millis(1);
        keep(&store, b"id", b"a", b"1", again);
    }
    let requests = store.requests.lock();
    assert!(requests.order.len() <= 2 * MAX_KEPT_REQUESTS + 1);
}
