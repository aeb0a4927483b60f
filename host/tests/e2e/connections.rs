//! Bytes and sockets that an honest gateway would not send or open, or seldom: half frames,
//! garbage, the longest frames, many connections, a full backlog. Whatever comes, everybody else is
//! served on.

use std::os::unix::net::UnixStream;

use plugin_proto::frame::MAX_DATA_LEN;
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with},
    process::{Resource, getrlimit, setrlimit},
};
use serde_json::json;

use crate::{
    message::Message,
    support::{Gateway, Host, frame, get, request, wait_for},
};

/// The frame of a usual call, and the line that its answer prints as.
fn usual_call(token: u32) -> (Vec<u8>, &'static str) {
    let call = Message::RequestCall {
        id: 7,
        src_ip: None,
        method: 0,
        path: "/some/path".into(),
        args: vec![("q".into(), Some("1".into()))],
        headers: vec![("host".into(), Some("gw.example".into()))],
        conf_token: token,
    };
    (frame(&call), "7 unchanged")
}

/// A host without plugins, and a token for a route without any.
fn empty_host(flags: &[(&str, &str)]) -> (Host, u32) {
    let host = flags
        .iter()
        .fold(Host::builder(), |builder, (flag, value)| {
            builder.flag(flag, value)
        })
        .start();
    let token = host.gateway().route::<String>([]);
    (host, token)
}

/// A new connection is served.
#[track_caller]
fn assert_serves(host: &Host, token: u32) {
    assert_eq!(host.gateway().call(token, get("/")), "unchanged");
}

#[test]
fn a_frame_that_arrives_byte_by_byte_is_served() {
    let (host, token) = empty_host(&[]);
    let mut gateway = host.gateway();
    let (call, answer) = usual_call(token);
    for _ in 0..2 {
        for byte in &call {
            gateway.send_bytes(&[*byte]);
        }
        assert_eq!(gateway.receive().to_string(), answer);
    }
}

#[test]
fn a_frame_that_ends_anywhere_in_the_middle_ends_its_connection_and_nothing_else() {
    let (host, token) = empty_host(&[]);
    let (call, _) = usual_call(token);
    for sent in 1..call.len() {
        let mut gateway = host.gateway();
        gateway.send_bytes(&call[..sent]);
        gateway.end_sending();
        gateway.expect_end();
    }
    assert_serves(&host, token);
}

#[test]
fn a_frame_that_does_not_go_on_is_given_up() {
    let (host, token) = empty_host(&[("--frame-read-timeout", "200ms")]);
    let (call, answer) = usual_call(token);
    for sent in [1, 4, call.len() - 1] {
        let mut gateway = host.gateway();
        gateway.send_bytes(&call[..sent]);
        assert_eq!(gateway.receive().to_string(), "error 0");
        gateway.expect_end();
    }
    host.log_line(&["WARN", "a frame took longer than 200 ms"]);

    // Between two frames there is no such bound: pooled connections stand idle for minutes.
    let mut idle = host.gateway();
    idle.send_bytes(&call);
    assert_eq!(idle.receive().to_string(), answer);
    let mut slow = host.gateway();
    slow.send_bytes(&call[..5]);
    slow.receive();
    idle.send_bytes(&call);
    assert_eq!(idle.receive().to_string(), answer);
}

#[test]
fn garbage_ends_its_connection_and_nothing_else() {
    let (host, token) = empty_host(&[]);
    // Marsaglia's xorshift: the same garbage in each run.
    let mut state = 0x2545_F491_u32;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    for _ in 0..300 {
        let length = random() % 2000;
        let mut garbage: Vec<u8> = (0..length).map(|_| (random() >> 24) as u8).collect();
        // Half of it begins like a frame that is all there.
        if length > 4 && random() % 2 == 0 {
            let data_length = (length - 4).to_be_bytes();
            garbage[0] = (random() % 5) as u8;
            garbage[1..4].copy_from_slice(&data_length[1..]);
        }
        let mut gateway = host.gateway();
        gateway.send_bytes(&garbage);
        gateway.end_sending();
        while let Some(message) = gateway.try_receive() {
            assert!(matches!(message, Message::Error { .. }), "{message}");
        }
    }
    assert_serves(&host, token);
}

#[test]
fn the_longest_call_that_a_frame_can_carry_is_served() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    let steps = json!([{ "report": ["x-path", "path"] }]);
    let token = gateway.route([("scripted", steps)]);
    let call = Message::RequestCall {
        id: 7,
        src_ip: None,
        method: 0,
        path: "/p".into(),
        args: Vec::new(),
        headers: vec![(
            "x-long".into(),
            Some(vec![b'x'; MAX_DATA_LEN - 1000].as_slice().into()),
        )],
        conf_token: token,
    };
    // Up to the last byte that three bytes of length can say.
    let mut call = frame(&call);
    call.resize(4 + MAX_DATA_LEN, 0);
    call[1..4].copy_from_slice(&[0xFF; 3]);
    for _ in 0..2 {
        gateway.send_bytes(&call);
        assert_eq!(
            gateway.receive().to_string(),
            "7 rewrite path none headers [x-path='/p'] args [] response headers [] body none"
        );
    }
}

#[test]
fn the_longest_body_that_a_frame_can_carry_is_asked_for_and_arrives() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    let steps = json!([{ "report": ["x-body", "body"] }]);
    let token = gateway.route([("scripted", steps)]);
    let longest = MAX_DATA_LEN - 64;
    gateway.set_request_body(&vec![0; longest]);
    let call = request("POST", "/").header("content-length", &longest.to_string());
    assert_eq!(
        gateway.call(token, call),
        format!(
            "rewrite path none headers [x-body='{longest} bytes, sum 00000000'] \
             args [] response headers [] body none"
        )
        .as_str()
    );
}

#[test]
fn a_frame_beyond_the_operators_bound_is_a_bad_request_before_it_has_arrived() {
    let (host, token) = empty_host(&[("--max-frame-bytes", "64KiB")]);
    let mut gateway = host.gateway();
    gateway.send_bytes(&[2, 1, 0, 1]);
    assert_eq!(gateway.receive().to_string(), "error 0");
    gateway.expect_end();
    host.log_line(&["WARN", "--max-frame-bytes"]);
    assert_serves(&host, token);
}

#[test]
fn frames_beyond_the_memory_for_bodies_are_refused_until_there_is_room_again() {
    let (host, token) = empty_host(&[
        ("--max-frame-bytes", "400KiB"),
        ("--max-body-memory", "400KiB"),
    ]);
    let long = Message::RequestCall {
        id: 7,
        src_ip: None,
        method: 0,
        path: vec![b'/'; 300_000].as_slice().into(),
        args: Vec::new(),
        headers: Vec::new(),
        conf_token: token,
    };
    let long = frame(&long);
    let mut first = host.gateway();
    first.send_bytes(&long[..200_000]);
    // The first frame holds the memory as soon as the host has read its length, which it may not
    // have done yet.
    wait_for("a second long frame is refused", || {
        let mut second = host.gateway();
        second.send_bytes(&long[..4]);
        second.end_sending();
        second.try_receive().map(|message| {
            assert_eq!(message.to_string(), "error 1");
        })
    });
    host.log_line(&["WARN", "--max-body-memory"]);
    assert_serves(&host, token);
    first.send_bytes(&long[200_000..]);
    assert_eq!(first.receive().to_string(), "7 unchanged");
    let mut third = host.gateway();
    third.send_bytes(&long);
    assert_eq!(third.receive().to_string(), "7 unchanged");
}

#[test]
fn connections_beyond_the_operators_bound_are_told_at_once_until_one_is_closed() {
    let (host, token) = empty_host(&[("--max-connections", "3")]);
    let (call, answer) = usual_call(token);
    let is_served = |gateway: &mut Gateway| {
        gateway.try_send_bytes(&call).is_ok()
            && gateway
                .try_receive()
                .is_some_and(|message| message.to_string() == answer)
    };
    // The host may not have noticed yet that connections have been closed.
    let mut open = wait_for("three connections are open", || {
        let mut open: Vec<Gateway> = (0..3).map(|_| host.gateway()).collect();
        open.iter_mut().all(is_served).then_some(open)
    });
    let mut refused = host.gateway();
    assert_eq!(refused.receive().to_string(), "error 1");
    refused.expect_end();
    host.log_line(&["ERROR", "too many connections", "--max-connections"]);
    assert!(open.iter_mut().all(is_served));
    open.pop();
    wait_for("there is room for a connection again", || {
        is_served(&mut host.gateway()).then_some(())
    });
}

/// Lets this process open as many files as it may; other tests run in it at the same time.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

#[test]
fn a_thousand_connections_are_served_at_the_same_time() {
    raise_descriptor_limit();
    let (host, token) = empty_host(&[]);
    let mut gateways: Vec<Gateway> = (0..1000).map(|_| host.gateway()).collect();
    for _ in 0..2 {
        for gateway in &mut gateways {
            gateway.begin(token, get("/"));
        }
        for gateway in &mut gateways {
            assert_eq!(gateway.finish(), "unchanged");
        }
    }
}

#[test]
fn what_waits_in_a_full_backlog_is_served_once_the_host_gets_to_it() {
    const BACKLOG: usize = 64;
    let (host, token) = empty_host(&[("--backlog", &BACKLOG.to_string())]);
    host.pause();
    let address = SocketAddrUnix::new(host.socket()).unwrap();
    let mut waiting = Vec::new();
    loop {
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        match connect(&socket, &address) {
            Ok(()) => {
                let stream = UnixStream::from(socket);
                stream.set_nonblocking(false).unwrap();
                let mut gateway = Gateway::on(stream);
                gateway.begin(token, get("/"));
                waiting.push(gateway);
            }
            Err(error) => {
                assert_eq!(error, Errno::AGAIN, "the backlog is full");
                break;
            }
        }
    }
    assert!(
        waiting.len() >= BACKLOG,
        "{} connections wait",
        waiting.len()
    );
    host.resume();
    for gateway in &mut waiting {
        assert_eq!(gateway.finish(), "unchanged");
    }
    assert_serves(&host, token);
}
