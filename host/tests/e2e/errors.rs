//! What the host answers to calls that it does not know or cannot understand, one RPC after the
//! other.

use plugin_proto::{FrameWriter, Method, http_req_call};
use serde_json::json;

use crate::{
    message::{Bytes, Message},
    support::{Gateway, Host, get, response},
};

const BAD_REQUEST: &str = "error 0";
const CONF_TOKEN_NOT_FOUND: &str = "error 2";

/// Sends bytes that are no call, and expects to be told so, and that the connection ends.
fn refused(host: &Host, bytes: &[u8]) {
    let mut gateway = host.gateway();
    gateway.send_bytes(bytes);
    assert_eq!(gateway.receive().to_string(), BAD_REQUEST, "{bytes:?}");
    gateway.expect_end();
}

/// A frame with this data, whatever it is.
fn frame(frame_type: u8, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap().to_be_bytes();
    [&[frame_type], &length[1..], data].concat()
}

/// A host without plugins, and a token for a route without any.
fn empty_host() -> (Host, Gateway, u32) {
    let host = Host::builder().start();
    let mut gateway = host.gateway();
    let token = gateway.route::<String>([]);
    (host, gateway, token)
}

#[test]
fn an_unknown_token_is_not_found_in_both_phases_and_the_connection_goes_on() {
    let (_host, mut gateway, token) = empty_host();
    for unknown in [0, token.wrapping_sub(1), token.wrapping_add(1)] {
        assert_eq!(gateway.call(unknown, get("/")), CONF_TOKEN_NOT_FOUND);
        assert_eq!(gateway.call(unknown, response(200)), CONF_TOKEN_NOT_FOUND);
    }
    assert_eq!(gateway.call(token, get("/")), "unchanged");
}

#[test]
fn an_answer_carries_the_number_of_its_call() {
    let (_host, mut gateway, token) = empty_host();
    // The client compares the number with every answer.
    for number in [0, 1, u32::MAX] {
        gateway.next_id(number);
        assert_eq!(gateway.call(token, get("/")), "unchanged");
        gateway.next_id(number);
        assert_eq!(
            gateway.call(token, response(200)),
            "answer 0 headers [] body none"
        );
    }
}

#[test]
fn data_that_is_no_message_is_a_bad_request_in_every_rpc() {
    let (host, ..) = empty_host();
    for frame_type in [1, 2, 4] {
        refused(&host, &frame(frame_type, b""));
        refused(&host, &frame(frame_type, b"x"));
        refused(&host, &frame(frame_type, &[0xFF; 64]));
    }
}

#[test]
fn a_frame_of_a_type_that_no_gateway_sends_is_a_bad_request() {
    let (host, ..) = empty_host();
    for frame_type in [0, 5, 255] {
        refused(&host, &frame(frame_type, &[0; 16]));
    }
}

#[test]
fn extra_info_that_nobody_asked_for_is_a_bad_request() {
    let (host, ..) = empty_host();
    let mut gateway = host.gateway();
    gateway.send(&Message::Info { result: None });
    assert_eq!(gateway.receive().to_string(), BAD_REQUEST);
    gateway.expect_end();
}

#[test]
fn a_second_call_before_the_first_is_answered_is_a_bad_request() {
    let (host, _, token) = empty_host();
    let mut writer = FrameWriter::new();
    let request = http_req_call::Request {
        id: 1,
        src_ip: None,
        method: Method::Get,
        path: b"/",
        args: [],
        headers: [],
        conf_token: token,
    };
    let call = http_req_call::write_request(&mut writer, request).unwrap();
    refused(&host, &[call, call].concat());
}

#[test]
fn a_method_that_the_protocol_does_not_know_is_served_all_the_same() {
    let (_host, mut gateway, token) = empty_host();
    let mut writer = FrameWriter::new();
    let mut with = |method| {
        let request = http_req_call::Request {
            id: 7,
            src_ip: None,
            method,
            path: b"/",
            args: [],
            headers: [],
            conf_token: token,
        };
        http_req_call::write_request(&mut writer, request)
            .unwrap()
            .to_vec()
    };
    // The one byte in which two methods differ is the method's number.
    let (patch, trace) = (with(Method::Patch), with(Method::Trace));
    let place = std::iter::zip(&patch, &trace).position(|(one, other)| one != other);
    let mut unknown = patch;
    unknown[place.unwrap()] = 200;
    gateway.send_bytes(&unknown);
    assert_eq!(gateway.receive().to_string(), "7 unchanged");
}

#[test]
fn a_prepare_without_key_and_conf_gets_a_token() {
    let (_host, mut gateway, _) = empty_host();
    gateway.send(&Message::Prepare {
        conf: Vec::new(),
        key: None,
    });
    let Message::Token { conf_token } = gateway.receive() else {
        panic!("no token");
    };
    assert_eq!(gateway.call(conf_token, get("/")), "unchanged");
}

#[test]
fn something_else_in_place_of_extra_info_ends_the_call_and_the_connection() {
    let host = Host::with("scripted");
    let steps = json!([{ "report": ["x-seen", { "var": "route_id" }] }]);
    let wrong: [Message; 2] = [
        Message::Prepare {
            conf: Vec::new(),
            key: None,
        },
        Message::ResponseCall {
            id: 9,
            status: 200,
            headers: Vec::new(),
            conf_token: 1,
        },
    ];
    for wrong in wrong {
        let mut gateway = host.gateway();
        let token = gateway.route([("scripted", &steps)]);
        gateway.begin(token, get("/"));
        assert_eq!(gateway.receive().to_string(), "ask 'route_id'");
        gateway.send(&wrong);
        gateway.expect_end();
    }
}

#[test]
fn broken_extra_info_ends_the_call_and_the_connection() {
    let host = Host::with("scripted");
    let steps = json!([{ "report": ["x-seen", { "var": "route_id" }] }]);
    for data in [&b""[..], &[0xFF; 32]] {
        let mut gateway = host.gateway();
        let token = gateway.route([("scripted", &steps)]);
        gateway.begin(token, get("/"));
        assert_eq!(gateway.receive().to_string(), "ask 'route_id'");
        gateway.send_bytes(&frame(3, data));
        gateway.expect_end();
    }
}

#[test]
fn bytes_that_are_not_utf8_pass_through() {
    let host = Host::with("scripted");
    let mut gateway = host.gateway();
    let steps = json!([{ "report": ["x-path", "path"] }, { "report": ["x-args", "args"] }]);
    let token = gateway.route([("scripted", steps)]);
    gateway.send(&Message::RequestCall {
        id: 1,
        src_ip: None,
        method: 0,
        path: (&b"/\xff\x00"[..]).into(),
        args: vec![((&b"\xfe"[..]).into(), Some(Bytes(vec![0xfd])))],
        headers: Vec::new(),
        conf_token: token,
    });
    assert_eq!(
        gateway.receive().to_string(),
        r"1 rewrite path none headers [x-path='/\xff\x00', x-args='\xfe=\xfd'] args [] response headers [] body none"
    );
}
