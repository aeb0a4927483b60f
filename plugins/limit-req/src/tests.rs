//! `limit-req` in a fake gateway, on a clock of the test's own; and its bucket, with any traffic.

#![allow(clippy::unwrap_used, reason = "a failed test says where it failed")]

use plugin_abi::testing::{Gateway, Loaded, Outcome, check_plugin_json, get, json};
use proptest::prelude::*;

use super::*;

const FOREVER: Duration = Duration::MAX;

fn plugin() -> Loaded {
    Gateway::new().load::<LimitReq>()
}

#[test]
fn without_a_burst_nothing_waits_and_the_refusal_is_503() {
    let route = plugin().route(json!({ "rate": 0.001 }));
    let first = route.request(get("/"));
    assert!(first.went_upstream() && first.took().is_zero());
    assert_eq!(route.request(get("/")).client().status(), 503);
}

#[test]
fn excess_waits_for_its_turn_and_the_rest_is_refused_as_the_route_says() {
    let gateway = Gateway::new();
    let plugin = gateway.load::<LimitReq>();
    let route = plugin.route(json!({ "rate": 2, "burst": 2, "rejected_code": 429 }));
    let four = || (0..4).map(|_| get("/"));
    let waited = |outcome: &Outcome| outcome.went_upstream().then(|| outcome.took().as_millis());
    let outcomes = route.requests(four());
    let waits: Vec<_> = outcomes.iter().map(waited).collect();
    assert_eq!(waits, [Some(0), Some(500), Some(1_000), None]);
    assert_eq!(outcomes[3].client().status(), 429);
    // After the queue, and half a second of nothing, it is as at first.
    gateway.advance(Duration::from_millis(500));
    let waits: Vec<_> = route.requests(four()).iter().map(waited).collect();
    assert_eq!(waits, [Some(0), Some(500), Some(1_000), None]);
}

#[test]
fn each_route_has_a_limit_of_its_own() {
    let plugin = plugin();
    let (one, other) = (
        plugin.route(json!({ "rate": 1 })),
        plugin.route(json!({ "rate": 1 })),
    );
    assert!(one.request(get("/")).went_upstream());
    assert!(!one.request(get("/")).went_upstream());
    assert!(other.request(get("/")).went_upstream());
}

#[test]
fn a_wait_that_the_call_has_no_time_for_is_a_refusal_at_once() {
    let hasty = Gateway::new().call_budget(Duration::from_millis(400));
    let route = hasty
        .load::<LimitReq>()
        .route(json!({ "rate": 2, "burst": 2 }));
    let outcomes = route.requests([get("/"), get("/")]);
    assert!(outcomes[0].went_upstream());
    assert_eq!(outcomes[1].client().status(), 503);
    assert!(outcomes[1].failures().is_empty() && outcomes[1].took().is_zero());
}

#[test]
fn a_rate_of_nothing_or_less_is_refused() {
    for rate in ["0", "-1", "-0.0"] {
        let reason = plugin().refusal(format!(r#"{{"rate": {rate}}}"#));
        assert!(reason.starts_with("rate is"), "{reason}");
    }
    let reason = plugin().refusal("{}");
    assert!(reason.contains("missing field `rate`"), "{reason}");
}

#[test]
fn a_refusal_that_the_gateway_cannot_deliver_is_refused() {
    let reason = plugin().refusal(json!({ "rate": 1, "rejected_code": 600 }));
    assert!(reason.starts_with("rejected_code is 600"), "{reason}");
}

#[test]
fn excess_within_the_burst_waits_and_the_rest_is_refused() {
    let now = Duration::from_secs(100);
    let mut bucket = Bucket::new(5.0, 2);
    let waits: Vec<_> = (0..4)
        .map(|_| bucket.take(now, FOREVER).map(|wait| wait.as_millis()))
        .collect();
    assert_eq!(waits, [Some(0), Some(200), Some(400), None]);
}

#[test]
fn a_wait_that_would_outlast_the_deadline_is_a_refusal() {
    let mut bucket = Bucket::new(1.0, 10);
    assert_eq!(
        bucket.take(Duration::ZERO, Duration::ZERO),
        Some(Duration::ZERO)
    );
    let left = Duration::from_secs(1);
    assert_eq!(bucket.take(Duration::ZERO, left), None);
    assert_eq!(
        bucket.take(Duration::from_millis(1), left),
        Some(Duration::from_millis(999))
    );
}

#[test]
fn the_extremes_of_the_rate_do_not_overflow() {
    let now = Duration::from_secs(1);
    for rate in [f64::MIN_POSITIVE, f64::MAX] {
        let mut bucket = Bucket::new(rate, u32::MAX);
        assert_eq!(bucket.take(now, FOREVER), Some(Duration::ZERO));
        assert!(bucket.take(now, FOREVER).unwrap() > Duration::ZERO);
    }
}

/// What became of one request: when it came, and when it went on, if it was not refused.
struct Passage {
    came: Duration,
    went: Option<Duration>,
}

fn run(bucket: &mut Bucket, gaps: &[u64]) -> Vec<Passage> {
    let mut now = Duration::ZERO;
    gaps.iter()
        .map(|gap| {
            now += Duration::from_micros(*gap);
            let wait = bucket.take(now, FOREVER);
            Passage {
                came: now,
                went: wait.map(|wait| now + wait),
            }
        })
        .collect()
}

fn traffic() -> impl Strategy<Value = (f64, u32, Vec<u64>)> {
    // From trickles to floods, in microseconds between two requests.
    let gap = prop_oneof![4 => 0_u64..100, 2 => 0_u64..100_000, 1 => 0_u64..10_000_000];
    (
        0.1_f64..10_000.0,
        0_u32..20,
        prop::collection::vec(gap, 1..200),
    )
}

proptest! {
    #[test]
    fn in_no_window_do_more_pass_than_the_rate_allows((rate, burst, gaps) in traffic()) {
        let went: Vec<Duration> = run(&mut Bucket::new(rate, burst), &gaps)
            .iter()
            .filter_map(|passage| passage.went)
            .collect();
        for first in 0..went.len() {
            for last in first + 1..went.len() {
                let window = (went[last] - went[first]).as_secs_f64();
                // One may pass at the very start of a window; the rest is what the rate gives.
                let allowed = window * rate + 1.0;
                let passed = (last - first + 1) as f64;
                prop_assert!(passed <= allowed + 1e-6, "{passed} passed in {window} s");
            }
        }
    }

    #[test]
    fn exactly_as_many_wait_as_the_burst_allows((rate, burst, gaps) in traffic()) {
        let passages = run(&mut Bucket::new(rate, burst), &gaps);
        for (index, passage) in passages.iter().enumerate() {
            let waiting = passages[..index]
                .iter()
                .filter(|earlier| earlier.went.is_some_and(|went| went > passage.came))
                .count();
            match passage.went {
                Some(went) if went > passage.came => prop_assert!(waiting < burst as usize),
                Some(_) => prop_assert_eq!(waiting, 0),
                // Refused only behind a full queue; without one, only before the next token.
                None => prop_assert_eq!(waiting, burst as usize),
            }
        }
    }

    #[test]
    fn nobody_is_overtaken_and_nobody_waits_for_ever((rate, burst, gaps) in traffic()) {
        let mut bucket = Bucket::new(rate, burst);
        let mut latest = Duration::ZERO;
        let longest = Duration::from_secs_f64(f64::from(burst) / rate) + Duration::from_micros(1);
        for passage in run(&mut bucket, &gaps) {
            let Some(went) = passage.went else { continue };
            prop_assert!(went >= latest);
            prop_assert!(went - passage.came <= longest);
            latest = went;
        }
        // Who comes when the last token is an interval old passes at once, whatever was before.
        let idle = latest + Duration::from_secs_f64(1.0 / rate) + Duration::from_micros(1);
        prop_assert_eq!(bucket.take(idle, FOREVER), Some(Duration::ZERO));
    }

    #[test]
    fn a_refused_request_costs_nothing((rate, burst, gaps) in traffic(), patience in 0_u64..1_000_000) {
        let mut bucket = Bucket::new(rate, burst);
        let mut now = Duration::ZERO;
        for gap in gaps {
            now += Duration::from_micros(gap);
            let before = bucket.clone();
            if bucket.take(now, Duration::from_micros(patience)).is_none() {
                prop_assert_eq!(&bucket, &before);
            }
        }
    }
}

#[test]
fn a_limiter_goes_on_where_the_one_before_it_stopped() {
    let parse = || Limiter::parse(br#"{"rate": 0.001, "burst": 1}"#).unwrap();
    let (old, new) = (parse(), parse());
    assert_eq!(old.take(FOREVER), Some(Duration::ZERO));
    // One comes to the new one before it knows.
    assert_eq!(new.take(FOREVER), Some(Duration::ZERO));
    let state = LimitReq.save_config_state(&old).unwrap().unwrap();
    LimitReq.restore_config_state(&new, &state).unwrap();
    // Two have passed, and where one may wait there is no place for a third.
    assert_eq!(new.take(FOREVER), None);
    assert!(new.leave().pending > 1_900_000_000_000);
}

#[test]
fn a_state_of_another_format_is_refused_and_changes_nothing() {
    let limiter = Limiter::parse(br#"{"rate": 1}"#).unwrap();
    for state in [State::from_bytes(2, "{}"), State::from_bytes(1, "no json")] {
        LimitReq.restore_config_state(&limiter, &state).unwrap_err();
    }
    assert_eq!(limiter.take(FOREVER), Some(Duration::ZERO));
}

proptest! {
    #[test]
    fn in_no_window_do_more_pass_than_the_rate_allows_also_where_the_bucket_is_handed_over(
        (rate, burst, gaps) in traffic(),
        at in 0_usize..200,
    ) {
        let mut now = Duration::ZERO;
        let mut bucket = Bucket::new(rate, burst);
        let mut went = Vec::new();
        for (index, gap) in gaps.iter().enumerate() {
            now += Duration::from_micros(*gap);
            if index == at {
                // The next one begins with its own clock at the same moment.
                let mut next = Bucket::new(rate, burst);
                next.put_off(now, bucket.pending(now));
                bucket = next;
            }
            went.extend(bucket.take(now, FOREVER).map(|wait| now + wait));
        }
        for pair in went.windows(2) {
            let apart = (pair[1] - pair[0]).as_secs_f64();
            prop_assert!(apart + 1e-6 >= 1.0 / rate, "{apart} s apart");
        }
    }
}

#[test]
fn plugin_json_is_true_about_this_crate() {
    check_plugin_json!(Options, include_str!("../plugin.json"));
}
