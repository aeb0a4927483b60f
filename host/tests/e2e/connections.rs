//! Connections that idle, stop half-way, send too much, or are too many.

use std::{
    sync::{Arc, Barrier},
    thread,
    time::Duration,
};

use plugin_proto::{FrameWriter, prepare_conf};
use rustix::process::{Resource, Signal};
use serde_json::json;

use crate::support::{Gateway, Host, get, wait_for};

const BAD_REQUEST: &str = "error 0";
const SERVICE_UNAVAILABLE: &str = "error 1";
const CONF_TOKEN_NOT_FOUND: &str = "error 2";

/// Length of the longest data that a frame can have.
const LONGEST: usize = (1 << 24) - 1;

/// Puts a call to a route without plugins, and gets its answer.
fn is_served(gateway: &mut Gateway) {
    let token = gateway.route::<String>([]);
    assert_eq!(gateway.call(token, get("/")), "unchanged");
}

/// A prepare of no plugins, with zeros behind the message so that its data has this length.
fn padded_prepare(data_len: usize) -> Vec<u8> {
    let mut writer = FrameWriter::new();
    let mut frame = prepare_conf::write_request(&mut writer, [], Some(b"padded#1"))
        .unwrap()
        .to_vec();
    frame.resize(4 + data_len, 0);
    let length = u32::try_from(data_len).unwrap().to_be_bytes();
    frame[1..4].copy_from_slice(&length[1..]);
    frame
}

/// Tests in one process have a thousand connections, and hosts inherit the bound.
fn allow_many_descriptors() {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    rustix::process::setrlimit(Resource::Nofile, limit).unwrap();
}

#[test]
fn a_frame_that_is_half_sent_is_given_up_after_its_time() {
    let host = Host::builder()
        .flag("--frame-read-timeout", "100ms")
        .start();
    let whole = padded_prepare(64);
    for half in [1, 3, 4, 20, whole.len() - 1] {
        let mut gateway = host.gateway();
        gateway.send_bytes(&whole[..half]);
        assert_eq!(gateway.receive().to_string(), BAD_REQUEST, "{half} bytes");
        gateway.expect_end();
    }
    host.log_line(&["longer than 100 ms"]);
}

#[test]
fn time_counts_from_the_first_byte_of_a_frame_and_not_before() {
    let host = Host::builder()
        .flag("--frame-read-timeout", "100ms")
        .start();
    let mut gateway = host.gateway();
    is_served(&mut gateway);
    thread::sleep(Duration::from_millis(300));
    is_served(&mut gateway);
}

#[test]
fn a_frame_may_come_byte_by_byte() {
    let host = Host::builder().start();
    let mut gateway = host.gateway();
    for byte in padded_prepare(64) {
        gateway.send_bytes(&[byte]);
    }
    assert!(gateway.receive().to_string().starts_with("token"));
    is_served(&mut gateway);
}

#[test]
fn a_connection_that_ends_inside_of_a_frame_disturbs_nobody() {
    let host = Host::builder().start();
    let mut other = host.gateway();
    for half in [1, 4, 20] {
        let mut gateway = host.gateway();
        gateway.send_bytes(&padded_prepare(64)[..half]);
        drop(gateway);
        is_served(&mut other);
    }
    host.log_line(&["ended inside of a frame"]);
}

#[test]
fn the_longest_frame_is_taken() {
    let host = Host::builder().start();
    let mut gateway = host.gateway();
    gateway.send_bytes(&padded_prepare(LONGEST));
    assert!(gateway.receive().to_string().starts_with("token"));
    is_served(&mut gateway);
}

#[test]
fn a_frame_above_the_operators_bound_is_refused_before_it_is_sent() {
    let host = Host::builder().flag("--max-frame-bytes", "64KiB").start();
    let mut gateway = host.gateway();
    gateway.send_bytes(&padded_prepare(64 << 10));
    assert!(gateway.receive().to_string().starts_with("token"));
    // Its first bytes are enough.
    gateway.send_bytes(&padded_prepare((64 << 10) + 1)[..4]);
    assert_eq!(gateway.receive().to_string(), BAD_REQUEST);
    gateway.expect_end();
    host.log_line(&["--max-frame-bytes"]);
}

#[test]
fn frames_beyond_the_memory_for_bodies_are_refused_and_it_comes_back() {
    let host = Host::builder()
        .flag("--max-frame-bytes", "1MiB")
        .flag("--max-body-memory", "1MiB")
        .start();
    let large = padded_prepare(1 << 20);
    let mut first = host.gateway();
    first.send_bytes(&large[..large.len() - 1]);
    // Only now is it certain that the first one's memory is counted.
    wait_for("the memory is used up", || {
        let mut second = host.gateway();
        second.send_bytes(&large[..8]);
        (second.receive().to_string() == SERVICE_UNAVAILABLE).then_some(())
    });
    first.send_bytes(&large[large.len() - 1..]);
    assert!(first.receive().to_string().starts_with("token"));
    let mut third = host.gateway();
    third.send_bytes(&large);
    assert!(third.receive().to_string().starts_with("token"));
}

#[test]
fn a_thousand_connections_are_served_at_once() {
    allow_many_descriptors();
    let host = Host::with("scripted");
    let mut gateways: Vec<_> = (0..1_000).map(|_| host.gateway()).collect();
    let token = gateways[0].route([("scripted", json!([{"sleep": 20}, {"set_path": "/x"}]))]);
    for gateway in &mut gateways {
        gateway.begin(token, get("/"));
    }
    for gateway in &mut gateways {
        let answer = gateway.finish().to_string();
        assert!(answer.starts_with("rewrite path '/x'"), "{answer}");
    }
    // And again on the same connections.
    for gateway in &mut gateways {
        gateway.begin(token, get("/"));
    }
    for gateway in &mut gateways {
        gateway.finish();
    }
}

#[test]
fn connections_above_the_bound_are_told_at_once_and_there_is_room_again_afterwards() {
    let host = Host::builder().flag("--max-connections", "3").start();
    // The one with which the test found out that the host listens is gone, or goes.
    let mut open: Vec<_> = Vec::new();
    wait_for("three connections", || {
        let mut gateway = host.gateway();
        let token = gateway.try_route();
        token.then(|| open.push(gateway));
        (open.len() == 3).then_some(())
    });
    let mut refused = host.gateway();
    assert_eq!(refused.receive().to_string(), SERVICE_UNAVAILABLE);
    refused.expect_end();
    host.log_line(&["too many connections", "--max-connections"]);
    for gateway in &mut open {
        is_served(gateway);
    }
    drop(open.pop());
    wait_for("there is room again", || {
        let mut gateway = host.gateway();
        gateway.try_route().then_some(())
    });
}

#[test]
fn connections_on_which_no_frame_comes_keep_nobody_waiting() {
    // A gateway that has found a token in its shared memory opens a connection for the prepare that
    // it then does not send.
    let host = Host::with("scripted");
    let mut pairs: Vec<_> = (0..50)
        .map(|route| {
            let (mut call, silent) = (host.gateway(), host.gateway());
            let key = format!("route#{route}#ext-plugin-pre-req#1");
            let value = json!([{"set_header": ["x-route", route.to_string()]}]);
            let token = call.prepare(&key, [("scripted", value)]);
            (call, silent, token)
        })
        .collect();
    for (route, (call, _, token)) in pairs.iter_mut().enumerate() {
        let answer = call.call(*token, get("/")).to_string();
        assert!(answer.contains(&format!("[x-route='{route}']")), "{answer}");
    }
    // They are good for a call later on.
    for (_, silent, token) in &mut pairs {
        let answer = silent.call(*token, get("/")).to_string();
        assert!(answer.starts_with("rewrite"), "{answer}");
    }
}

#[test]
fn connections_beyond_the_backlog_are_served_as_soon_as_it_has_room() {
    let host = Host::builder().flag("--backlog", "4").start();
    let socket = host.socket();
    host.signal(Signal::STOP);
    let connecting: Vec<_> = (0..40)
        .map(|_| {
            let socket = socket.clone();
            // Most of them wait in here: the backlog is full.
            thread::spawn(move || is_served(&mut Gateway::connect(&socket)))
        })
        .collect();
    thread::sleep(Duration::from_millis(100));
    assert!(connecting.iter().all(|served| !served.is_finished()));
    host.signal(Signal::CONT);
    for served in connecting {
        served.join().unwrap();
    }
}

#[test]
fn a_full_backlog_of_the_default_size_loses_no_call() {
    allow_many_descriptors();
    let host = Host::builder().start();
    host.signal(Signal::STOP);
    let frame = padded_prepare(64);
    let mut waiting: Vec<_> = (0..1_000)
        .map(|_| {
            let mut gateway = host.gateway();
            gateway.send_bytes(&frame);
            gateway
        })
        .collect();
    host.signal(Signal::CONT);
    for gateway in &mut waiting {
        assert!(gateway.receive().to_string().starts_with("token"));
    }
}

#[test]
fn the_same_configuration_prepared_at_once_from_many_connections_has_one_token() {
    let host = Host::with("scripted");
    let start = Arc::new(Barrier::new(32));
    let preparing: Vec<_> = (0..32)
        .map(|_| {
            let (mut gateway, start) = (host.gateway(), Arc::clone(&start));
            thread::spawn(move || {
                start.wait();
                let conf = [("scripted", json!([{"set_path": "/one"}]))];
                gateway.prepare("route#1#ext-plugin-pre-req#7", conf)
            })
        })
        .collect();
    let tokens: Vec<_> = preparing
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    assert!(tokens.iter().all(|token| *token == tokens[0]), "{tokens:?}");
    let answer = host.gateway().call(tokens[0], get("/")).to_string();
    assert!(answer.starts_with("rewrite path '/one'"), "{answer}");
}

#[test]
fn a_token_dies_unused_after_its_time() {
    let host = Host::builder().env("APISIX_CONF_EXPIRE_TIME", "1").start();
    let mut gateway = host.gateway();
    let token = gateway.route::<String>([]);
    assert_eq!(gateway.call(token, get("/")), "unchanged");
    // 1.2 times the gateway's second.
    thread::sleep(Duration::from_millis(1_300));
    assert_eq!(gateway.call(token, get("/")), CONF_TOKEN_NOT_FOUND);
    let again = gateway.route::<String>([]);
    assert_eq!(gateway.call(again, get("/")), "unchanged");
}

#[test]
fn a_token_lives_as_long_as_it_is_used() {
    let host = Host::builder().env("APISIX_CONF_EXPIRE_TIME", "2").start();
    let mut gateway = host.gateway();
    let token = gateway.route::<String>([]);
    // Longer than the 2.4 s that it would live unused.
    for _ in 0..10 {
        thread::sleep(Duration::from_millis(300));
        assert_eq!(gateway.call(token, get("/")), "unchanged");
    }
}

#[test]
fn tokens_above_the_bound_push_out_the_longest_unused_and_the_log_is_loud() {
    let host = Host::builder().flag("--max-tokens", "16").start();
    let mut gateway = host.gateway();
    let tokens: Vec<_> = (0..40).map(|_| gateway.route::<String>([])).collect();
    assert_eq!(gateway.call(tokens[0], get("/")), CONF_TOKEN_NOT_FOUND);
    assert_eq!(gateway.call(tokens[39], get("/")), "unchanged");
    host.log_line(&["ERROR", "too many live configurations", "--max-tokens"]);
}

#[test]
fn no_token_is_zero_and_none_is_given_twice() {
    let host = Host::builder().start();
    let mut gateway = host.gateway();
    let mut tokens: Vec<_> = (0..200).map(|_| gateway.route::<String>([])).collect();
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), 200);
    assert!(!tokens.contains(&0));
}
